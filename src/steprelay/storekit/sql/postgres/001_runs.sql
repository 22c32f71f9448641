-- Times are seconds since the epoch. Payloads are opaque text: nothing here, and no query, looks into them.
-- `steprelay.` stands for the schema the store is told to use.
--
-- There are no foreign keys: every insert would lock the run's row once more, and every writer holds that lock already.

-- What never changes comes first and what every step changes comes last: an update then writes only the end of the row
-- to the log. fillfactor leaves room for the next version on the same page (a "heap-only" update touches no index).
CREATE TABLE steprelay.run (
  no             bigint GENERATED ALWAYS AS IDENTITY,  -- what the rows of a run are filed under: short, whatever its name
  tenant         text COLLATE "C" NOT NULL,
  id             text COLLATE "C" NOT NULL,
  agent          text   NOT NULL,
  adapter        text   NOT NULL,
  owner          text,
  parent         text,
  labels         text   NOT NULL,
  tags           text[] NOT NULL DEFAULT '{}',  -- each label as one text, to be searched
  notify_url     text,
  create_hash    text,
  created_at     float8 NOT NULL,
  "schema"       int    NOT NULL,
  takeover_after float8,
  limits         text   NOT NULL,
  prompt         text,
  state          text,
  scratchpad     text,
  wait           text,
  tail           text,
  pruned         bool   NOT NULL DEFAULT false,
  round          int    NOT NULL,
  floor          int    NOT NULL,
  inbox_seq      bigint NOT NULL DEFAULT 0,     -- the newest number given out: none is ever used twice
  reopen_seq     bigint NOT NULL DEFAULT 0,     -- number of the newest signal that reopens
  outbox_seq     bigint NOT NULL DEFAULT 0,
  inbox_read     bigint NOT NULL DEFAULT 0,
  due_minute     float8 GENERATED ALWAYS AS (floor(due_at / 60) * 60) STORED,
  carrier        text   NOT NULL,
  status         text   NOT NULL,
  stop_reason    text,
  ended          bool   NOT NULL,
  due_at         float8,                        -- NULL: nobody may claim
  updated_at     float8 NOT NULL,
  step           int    NOT NULL,               -- index of the next step
  attempts       int    NOT NULL DEFAULT 0,     -- claims of this index, counted when claimed: a killed worker can count nothing
  lease_until    float8 NOT NULL DEFAULT 0,
  fence          bigint NOT NULL DEFAULT 0,     -- +1 at every claim, never back
  claim_id       text,                          -- NULL: unheld
  holder         text,
  tally          text   NOT NULL,
  PRIMARY KEY (tenant, id),
  UNIQUE (no)
) WITH (fillfactor = 60);

-- `due` reads the front of these, so it costs the same beside a million runs that wait, have ended or belong to a carrier
-- nobody asked for. They hold the minute and not the instant: a run under way is due anew after every step, and an index
-- on the instant would have to be rewritten each time.
CREATE INDEX run_due ON steprelay.run (carrier, due_minute) WHERE due_minute IS NOT NULL;
CREATE INDEX run_takeover ON steprelay.run ((takeover_after IS NULL), due_minute) WHERE due_minute IS NOT NULL;
CREATE INDEX run_list ON steprelay.run (tenant, created_at, id);

CREATE TABLE steprelay.step (
  run          bigint NOT NULL,
  idx          int    NOT NULL,
  round        int    NOT NULL,
  attempt      int    NOT NULL,
  floor        int,
  claimed_at   float8 NOT NULL,
  committed_at float8 NOT NULL,
  carrier      text   NOT NULL,
  claim_id     text   NOT NULL,
  status       text   NOT NULL,
  stop_reason  text,
  request_id   text COLLATE "C",
  request_hash text,
  usage        text,
  state        text,
  messages     text,                            -- one JSON text a line; NULL: none
  parts        text,
  PRIMARY KEY (run, idx)
);
CREATE UNIQUE INDEX step_request ON steprelay.step (run, request_id) WHERE request_id IS NOT NULL;

CREATE TABLE steprelay.inbox (
  run            bigint NOT NULL,
  seq            bigint NOT NULL,
  at             float8 NOT NULL,
  kind           text   NOT NULL,
  body           text   NOT NULL,
  request_id     text COLLATE "C",
  reopens        bool   NOT NULL,
  carrier        text,
  takeover_after float8,
  PRIMARY KEY (run, seq)
);
CREATE UNIQUE INDEX inbox_request ON steprelay.inbox (run, request_id) WHERE request_id IS NOT NULL;

CREATE TABLE steprelay.ledger (
  run    bigint NOT NULL,
  key    text COLLATE "C" NOT NULL,
  entry  text NOT NULL,
  PRIMARY KEY (run, key)
);

CREATE TABLE steprelay.outbox (
  run        bigint NOT NULL,
  seq        bigint NOT NULL,
  due_at     float8,                            -- NULL: delivered
  tries      int    NOT NULL DEFAULT 0,
  kind       text   NOT NULL,
  target     text   NOT NULL,
  request_id text   NOT NULL,
  body       text   NOT NULL,
  PRIMARY KEY (run, seq)
);
CREATE INDEX outbox_due ON steprelay.outbox (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE steprelay.blob (
  run    bigint NOT NULL,
  name   text COLLATE "C" NOT NULL,
  value  text NOT NULL,
  PRIMARY KEY (run, name)
);

CREATE TABLE steprelay.kv (
  name  text COLLATE "C" PRIMARY KEY,
  value text   NOT NULL,
  until float8 NOT NULL
);
