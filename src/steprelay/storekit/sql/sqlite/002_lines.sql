-- Messages and parts are one line each: no JSON around JSON.
UPDATE step SET messages = coalesce((SELECT group_concat(value, char(10)) FROM json_each(messages)), ''),
                parts    = coalesce((SELECT group_concat(value, char(10)) FROM json_each(parts)), '');
