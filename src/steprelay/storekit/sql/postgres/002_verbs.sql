-- The verbs: one function is one verb is one round trip. All are VOLATILE plpgsql on purpose: every statement inside has a
-- snapshot of its own, so what is read after a row was locked is what its last holder left. (In one statement, however
-- clever, a claim that waited for the row sees the new row beside the old steps.) They rely on READ COMMITTED, the default.
-- `p_now` is for tests.

CREATE FUNCTION steprelay.clock(p_now float8) RETURNS float8 LANGUAGE sql VOLATILE AS $$
  SELECT coalesce(p_now, extract(epoch FROM clock_timestamp())::float8)
$$;

-- Unread signals, one array of texts each, in the order of their numbers.
CREATE FUNCTION steprelay.unread(p_run bigint, p_after bigint) RETURNS text[] LANGUAGE sql VOLATILE AS $$
  SELECT array_agg(ARRAY[s.kind, s.body, s.request_id, s.reopens::int::text, s.carrier, s.takeover_after::text, s.seq::text, s.at::text]
                   ORDER BY s.seq)
    FROM steprelay.inbox s WHERE s.run = p_run AND s.seq > p_after
$$;


-- The first row says what came of it and carries the run; when granted, the rows after it carry the steps from the floor on.
CREATE FUNCTION steprelay.claim(
  p_tenant text, p_id text, p_claim_id text, p_holder text, p_lease float8, p_carrier text, p_expect int,
  p_request text, p_hash text, p_now float8, p_created bool
) RETURNS TABLE (reason text, at float8, until float8, run steprelay.run, step steprelay.step, inbox text[], ledger text[])
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  v_found record; v_run steprelay.run; v_step steprelay.step; v_reason text; v_now float8; v_until float8;
BEGIN
  LOOP
    v_now := steprelay.clock(p_now);
    SELECT r AS run, r.xmin AS version INTO v_found FROM steprelay.run r WHERE r.tenant = p_tenant AND r.id = p_id;
    IF NOT FOUND THEN
      RETURN QUERY SELECT 'absent', v_now, NULL::float8, NULL::steprelay.run, NULL::steprelay.step, NULL::text[], NULL::text[];
      RETURN;
    END IF;
    v_run := v_found.run; v_reason := NULL; v_step := NULL; v_until := NULL;
    IF p_lease = 0 THEN
      v_reason := CASE WHEN p_created THEN 'created' ELSE 'exists' END;
    ELSIF v_run.claim_id = p_claim_id THEN
      EXIT;  -- granted already: the answer was lost
    END IF;
    IF v_reason IS NULL AND p_request IS NOT NULL THEN
      SELECT s.* INTO v_step FROM steprelay.step s WHERE s.run = v_run.no AND s.request_id = p_request;
      IF FOUND THEN
        v_reason := CASE WHEN v_step.request_hash = p_hash THEN 'replay' ELSE 'conflict' END;
      END IF;
    END IF;
    IF v_reason IS NULL THEN
      v_reason := CASE
        WHEN p_expect <> v_run.step THEN 'index'
        WHEN v_run.ended THEN 'ended'
        WHEN v_run.claim_id IS NOT NULL AND v_run.lease_until > v_now THEN 'busy'
        WHEN v_run.due_at IS NULL THEN 'waiting'
        WHEN v_run.due_at > v_now THEN 'later'
      END;
      IF v_reason = 'busy' THEN
        v_until := v_run.lease_until;
      ELSIF v_reason IS NULL AND p_carrier IS NOT NULL AND v_run.carrier NOT IN (p_carrier, 'any') THEN
        v_until := greatest(v_run.due_at, v_run.lease_until) + v_run.takeover_after;
        IF v_until IS NULL OR v_until > v_now THEN
          v_reason := 'busy';
        END IF;
      END IF;
    END IF;
    IF v_reason IS NOT NULL THEN
      IF v_reason NOT IN ('replay', 'conflict') THEN
        SELECT s.* INTO v_step FROM steprelay.step s WHERE s.run = v_run.no ORDER BY s.idx DESC LIMIT 1;
      END IF;
      RETURN QUERY SELECT v_reason, v_now, v_until, v_run, v_step, NULL::text[], NULL::text[];
      RETURN;
    END IF;

    -- Judged on a row that nobody had locked: it is ours only if it is still that very row.
    UPDATE steprelay.run r SET
        fence = r.fence + 1, attempts = r.attempts + 1, claim_id = p_claim_id, holder = p_holder, lease_until = v_now + p_lease,
        carrier = CASE WHEN p_carrier IS NULL OR r.carrier = 'any' THEN r.carrier ELSE p_carrier END
     WHERE r.tenant = p_tenant AND r.id = p_id AND r.xmin = v_found.version
    RETURNING r.* INTO v_run;
    EXIT WHEN FOUND;
  END LOOP;

  RETURN QUERY SELECT 'claimed', v_now, NULL::float8, v_run, NULL::steprelay.step,
    CASE WHEN v_run.inbox_seq > v_run.inbox_read THEN steprelay.unread(v_run.no, v_run.inbox_read) END,
    (SELECT array_agg(ARRAY[l.key, l.entry]) FROM steprelay.ledger l WHERE l.run = v_run.no);
  RETURN QUERY SELECT NULL, NULL::float8, NULL::float8, NULL::steprelay.run, s, NULL::text[], NULL::text[]
    FROM steprelay.step s WHERE s.run = v_run.no AND s.idx >= v_run.floor ORDER BY s.idx;
END $$;


-- Create the run if it is absent, and claim it in the same act. `p_steps`: a history to begin with.
CREATE FUNCTION steprelay.start(
  p_tenant text, p_id text, p_claim_id text, p_holder text, p_lease float8, p_carrier text, p_expect int,
  p_request text, p_hash text, p_now float8,
  p_agent text, p_adapter text, p_owner text, p_parent text, p_labels text, p_tags text[], p_notify_url text,
  p_create_hash text, p_schema int, p_run_carrier text, p_takeover_after float8, p_limits text, p_prompt text, p_state text,
  p_scratchpad text, p_round int, p_floor int, p_status text, p_stop_reason text, p_due bool, p_tally text, p_steps text[]
) RETURNS TABLE (reason text, at float8, until float8, run steprelay.run, step steprelay.step, inbox text[], ledger text[])
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  v_now float8 := steprelay.clock(p_now); v_run bigint; v_created bool;
BEGIN
  INSERT INTO steprelay.run (
      tenant, id, agent, adapter, owner, parent, labels, tags, notify_url, create_hash, created_at, "schema", takeover_after,
      limits, prompt, state, scratchpad, round, floor, due_at, carrier, status, stop_reason, ended, step, updated_at, tally)
    VALUES (
      p_tenant, p_id, p_agent, p_adapter, p_owner, p_parent, p_labels, p_tags, p_notify_url, p_create_hash, v_now, p_schema,
      p_takeover_after, p_limits, p_prompt, p_state, p_scratchpad, p_round, p_floor, CASE WHEN p_due THEN v_now END,
      p_run_carrier, p_status, p_stop_reason, NOT p_due, coalesce(array_length(p_steps, 1), 0), v_now, p_tally)
    ON CONFLICT DO NOTHING
    RETURNING no INTO v_run;
  v_created := FOUND;
  IF v_created AND p_steps IS NOT NULL THEN
    INSERT INTO steprelay.step (
        run, idx, round, attempt, carrier, claim_id, status, stop_reason, request_id, request_hash, messages, parts,
        usage, state, floor, claimed_at, committed_at)
      SELECT v_run, p_steps[i][1]::int, p_steps[i][2]::int, p_steps[i][3]::int, p_steps[i][4], p_steps[i][5],
             p_steps[i][6], p_steps[i][7], p_steps[i][8], p_steps[i][9], p_steps[i][10], p_steps[i][11], p_steps[i][12],
             p_steps[i][13], p_steps[i][14]::int, p_steps[i][15]::float8, coalesce(nullif(p_steps[i][16]::float8, 0), v_now)
        FROM generate_subscripts(p_steps, 1) i;
  END IF;
  RETURN QUERY SELECT c.* FROM steprelay.claim(p_tenant, p_id, p_claim_id, p_holder, p_lease, p_carrier, p_expect, p_request,
                                               p_hash, p_now, v_created) c;
END $$;


-- Ledger entries to add or replace: rows of (key, entry).
CREATE FUNCTION steprelay.note(p_run bigint, p_ledger text[]) RETURNS void LANGUAGE sql VOLATILE AS $$
  INSERT INTO steprelay.ledger (run, key, entry)
    SELECT p_run, p_ledger[i][1], p_ledger[i][2] FROM generate_subscripts(p_ledger, 1) i
    ON CONFLICT (run, key) DO UPDATE SET entry = excluded.entry
$$;


-- Make a step true (`p_step_round` is given), or release the claim. What arrived meanwhile is judged by the numbers in the
-- row itself: a signal that slips in while this waits for the row is seen, because the row is read again then.
CREATE FUNCTION steprelay.commit(
  p_tenant text, p_id text, p_index int, p_fence bigint, p_claim_id text, p_renew float8, p_now float8,
  p_status text, p_stop_reason text, p_after float8, p_ended bool, p_wait text, p_tally text, p_inbox_read bigint,
  p_scratchpad text, p_state text, p_floor int, p_prompt text, p_limits text, p_round int, p_attempts int,
  p_keep_ledger bool, p_ledger text[], p_outbox text[], p_blobs text[],
  p_step_round int, p_step_attempt int, p_step_carrier text, p_step_claim_id text, p_step_status text, p_step_stop_reason text,
  p_request text, p_hash text, p_messages text, p_parts text, p_usage text, p_step_state text, p_step_floor int,
  p_claimed_at float8
) RETURNS TABLE (done bool, at float8, inbox text[])
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  v_now float8 := steprelay.clock(p_now); v_stepped bool := p_step_round IS NOT NULL; v_run bigint; v_inbox_seq bigint;
  v_outbox_seq bigint;
BEGIN
  UPDATE steprelay.run r SET
      status = p_status, stop_reason = p_stop_reason, wait = p_wait, tally = p_tally, inbox_read = p_inbox_read,
      ended = p_ended AND r.reopen_seq <= p_inbox_read,
      due_at = CASE WHEN r.inbox_seq > p_inbox_read AND NOT (p_ended AND r.reopen_seq <= p_inbox_read)
                    THEN v_now ELSE v_now + p_after END,
      step = r.step + v_stepped::int,
      attempts = CASE WHEN p_renew IS NOT NULL AND NOT (p_ended AND r.reopen_seq <= p_inbox_read) THEN 1
                      WHEN v_stepped THEN 0 ELSE coalesce(p_attempts, r.attempts) END,
      claim_id = CASE WHEN p_renew IS NOT NULL AND NOT (p_ended AND r.reopen_seq <= p_inbox_read) THEN r.claim_id END,
      holder = CASE WHEN p_renew IS NOT NULL AND NOT (p_ended AND r.reopen_seq <= p_inbox_read) THEN r.holder END,
      lease_until = CASE WHEN p_renew IS NOT NULL AND NOT (p_ended AND r.reopen_seq <= p_inbox_read) THEN v_now + p_renew ELSE 0 END,
      tail = CASE WHEN v_stepped THEN NULL ELSE r.tail END,
      updated_at = v_now,
      scratchpad = coalesce(p_scratchpad, r.scratchpad), state = coalesce(p_state, r.state), floor = coalesce(p_floor, r.floor),
      prompt = coalesce(p_prompt, r.prompt), limits = coalesce(p_limits, r.limits), round = coalesce(p_round, r.round),
      outbox_seq = r.outbox_seq + coalesce(array_length(p_outbox, 1), 0)
   WHERE r.tenant = p_tenant AND r.id = p_id AND r.step = p_index AND r.fence = p_fence AND r.claim_id = p_claim_id
  RETURNING r.no, r.inbox_seq, r.outbox_seq INTO v_run, v_inbox_seq, v_outbox_seq;
  IF NOT FOUND THEN
    RETURN QUERY SELECT false, v_now, NULL::text[];
    RETURN;
  END IF;

  IF v_stepped THEN
    INSERT INTO steprelay.step (
        run, idx, round, attempt, floor, claimed_at, committed_at, carrier, claim_id, status, stop_reason, request_id,
        request_hash, usage, state, messages, parts)
      VALUES (
        v_run, p_index, p_step_round, p_step_attempt, p_step_floor, p_claimed_at, v_now, p_step_carrier,
        p_step_claim_id, p_step_status, p_step_stop_reason, p_request, p_hash, p_usage, p_step_state, p_messages, p_parts);
    IF NOT p_keep_ledger THEN
      DELETE FROM steprelay.ledger l WHERE l.run = v_run;
    END IF;
  END IF;
  IF p_ledger IS NOT NULL AND (p_keep_ledger OR NOT v_stepped) THEN
    PERFORM steprelay.note(v_run, p_ledger);
  END IF;
  IF p_outbox IS NOT NULL THEN
    INSERT INTO steprelay.outbox (run, seq, due_at, kind, target, body, request_id)
      SELECT v_run, v_outbox_seq - array_length(p_outbox, 1) + i, v_now,
             p_outbox[i][1], p_outbox[i][2], p_outbox[i][3], p_outbox[i][4]
        FROM generate_subscripts(p_outbox, 1) i;
  END IF;
  IF p_blobs IS NOT NULL THEN
    INSERT INTO steprelay.blob (run, name, value)
      SELECT v_run, p_blobs[i][1], p_blobs[i][2] FROM generate_subscripts(p_blobs, 1) i
      ON CONFLICT (run, name) DO UPDATE SET value = excluded.value;
  END IF;
  RETURN QUERY SELECT true, v_now,
    CASE WHEN v_inbox_seq > p_inbox_read THEN steprelay.unread(v_run, p_inbox_read) END;
END $$;


CREATE FUNCTION steprelay.progress(
  p_tenant text, p_id text, p_index int, p_fence bigint, p_claim_id text, p_lease float8, p_tail text, p_ledger text[], p_now float8
) RETURNS TABLE (alive bool, at float8, cancel bool)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  v_now float8 := steprelay.clock(p_now); v_run bigint; v_inbox_seq bigint; v_read bigint;
BEGIN
  UPDATE steprelay.run r SET lease_until = v_now + p_lease, tail = coalesce(p_tail, r.tail)
   WHERE r.tenant = p_tenant AND r.id = p_id AND r.step = p_index AND r.fence = p_fence AND r.claim_id = p_claim_id
  RETURNING r.no, r.inbox_seq, r.inbox_read INTO v_run, v_inbox_seq, v_read;
  IF NOT FOUND THEN
    RETURN QUERY SELECT false, v_now, false;
    RETURN;
  END IF;
  IF p_ledger IS NOT NULL THEN
    PERFORM steprelay.note(v_run, p_ledger);
  END IF;
  RETURN QUERY SELECT true, v_now, v_inbox_seq > v_read AND EXISTS (
    SELECT FROM steprelay.inbox s WHERE s.run = v_run AND s.seq > v_read AND s.kind = 'cancel');
END $$;


-- No row: there is no such run.
CREATE FUNCTION steprelay.signal(
  p_tenant text, p_id text, p_kind text, p_body text, p_request text, p_reopens bool, p_carrier text, p_takeover_after float8,
  p_now float8
) RETURNS TABLE (first bool, at float8, body text, run steprelay.run)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  v_run steprelay.run; v_body text; v_now float8;
BEGIN
  SELECT r.* INTO v_run FROM steprelay.run r WHERE r.tenant = p_tenant AND r.id = p_id FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  v_now := steprelay.clock(p_now);
  IF p_request IS NOT NULL THEN
    SELECT s.body INTO v_body FROM steprelay.inbox s WHERE s.run = v_run.no AND s.request_id = p_request;
    IF FOUND THEN
      RETURN QUERY SELECT false, v_now, v_body, v_run;
      RETURN;
    END IF;
  END IF;
  INSERT INTO steprelay.inbox (run, seq, at, kind, body, request_id, reopens, carrier, takeover_after)
    VALUES (v_run.no, v_run.inbox_seq + 1, v_now, p_kind, p_body, p_request, p_reopens, p_carrier, p_takeover_after);
  UPDATE steprelay.run r SET
      inbox_seq = r.inbox_seq + 1,
      reopen_seq = CASE WHEN p_reopens THEN r.inbox_seq + 1 ELSE r.reopen_seq END,
      carrier = coalesce(p_carrier, r.carrier),
      takeover_after = CASE WHEN p_carrier IS NULL THEN r.takeover_after ELSE p_takeover_after END,
      ended = r.ended AND NOT p_reopens,
      due_at = CASE WHEN (r.ended AND NOT p_reopens) OR (r.claim_id IS NOT NULL AND r.lease_until > v_now)
                    THEN r.due_at ELSE v_now END
   WHERE r.tenant = p_tenant AND r.id = p_id
  RETURNING r.* INTO v_run;
  RETURN QUERY SELECT true, v_now, p_body, v_run;
END $$;


-- Per carrier asked for, and among the runs whose carrier fell silent: the front of an index, never the whole of it.
CREATE FUNCTION steprelay.due(p_carriers text[], p_limit int, p_now float8)
RETURNS TABLE (due_at float8, tenant text, run text, carrier text, why text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  v_now float8 := steprelay.clock(p_now);
BEGIN
  RETURN QUERY
    WITH found AS (
      SELECT r.* FROM unnest(p_carriers || 'any'::text) c(name)
        CROSS JOIN LATERAL (
          SELECT r.due_at, r.tenant, r.id, r.carrier FROM steprelay.run r
           WHERE r.carrier = c.name AND r.due_minute <= v_now AND r.due_at <= v_now
             AND (r.claim_id IS NULL OR r.lease_until <= v_now)
           ORDER BY r.due_minute, r.due_at LIMIT p_limit) r
       WHERE p_carriers <> '{}'
      UNION
      SELECT r.* FROM (VALUES (false), (p_carriers IS NULL)) n(never)
        CROSS JOIN LATERAL (
          SELECT r.due_at, r.tenant, r.id, r.carrier FROM steprelay.run r
           WHERE (r.takeover_after IS NULL) = n.never AND r.due_minute <= v_now AND r.due_at <= v_now
             AND (r.claim_id IS NULL OR r.lease_until <= v_now)
             AND (p_carriers IS NULL OR greatest(r.due_at, r.lease_until) + r.takeover_after <= v_now)
           ORDER BY r.due_minute, r.due_at LIMIT p_limit) r
       WHERE p_carriers IS NULL OR p_carriers <> '{}'
    ), undelivered AS (
      SELECT min(o.due_at) AS at, o.run FROM steprelay.outbox o
       WHERE o.due_at <= v_now GROUP BY o.run ORDER BY at LIMIT p_limit
    )
    SELECT f.due_at, f.tenant, f.id, f.carrier, 'step' FROM found f
    UNION ALL
    SELECT u.at, r.tenant, r.id, r.carrier, 'outbox' FROM undelivered u JOIN steprelay.run r ON r.no = u.run
    ORDER BY 1 LIMIT p_limit;
END $$;


CREATE FUNCTION steprelay.ack(p_tenant text, p_id text, p_delivered bigint[], p_retry_after float8, p_now float8) RETURNS void
LANGUAGE sql VOLATILE AS $$
  UPDATE steprelay.outbox o
     SET due_at = steprelay.clock(p_now) + p_retry_after, tries = o.tries + (p_retry_after IS NOT NULL)::int
    FROM steprelay.run r
   WHERE r.tenant = p_tenant AND r.id = p_id AND o.run = r.no AND o.seq = ANY (p_delivered) AND o.due_at IS NOT NULL
$$;


-- The run's row is emptied first: from then on nobody can commit to it, and the rest may go.
CREATE FUNCTION steprelay.prune(
  p_before float8, p_tenant text, p_status text[], p_agent text, p_owner text, p_tag text, p_created_at float8, p_created_id text,
  p_now float8
) RETURNS int
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  v_emptied bigint[]; v_all bigint[]; v_count int;
BEGIN
  SELECT array_agg(r.no) INTO v_all FROM steprelay.run r
   WHERE r.tenant = p_tenant AND NOT r.pruned AND (p_status IS NULL OR r.status = ANY (p_status))
     AND (p_agent IS NULL OR r.agent = p_agent) AND (p_owner IS NULL OR r.owner = p_owner) AND (p_tag IS NULL OR p_tag = ANY (r.tags))
     AND (p_created_at IS NULL OR (r.created_at, r.id) < (p_created_at, p_created_id));
  WITH emptied AS (
    UPDATE steprelay.run r
       SET pruned = true, prompt = NULL, state = NULL, scratchpad = NULL, tail = NULL, floor = r.step
     WHERE r.no = ANY (v_all) AND r.ended AND NOT r.pruned AND r.updated_at < p_before
       AND NOT EXISTS (SELECT FROM steprelay.outbox o WHERE o.run = r.no AND o.due_at IS NOT NULL)
    RETURNING r.no
  ) SELECT array_agg(no), count(*) INTO v_emptied, v_count FROM emptied;
  DELETE FROM steprelay.step t WHERE t.run = ANY (v_emptied);
  DELETE FROM steprelay.inbox t WHERE t.run = ANY (v_emptied);
  DELETE FROM steprelay.ledger t WHERE t.run = ANY (v_emptied);
  DELETE FROM steprelay.outbox t WHERE t.run = ANY (v_emptied);
  DELETE FROM steprelay.blob t WHERE t.run = ANY (v_emptied);
  -- The newest step of the others stays whatever the floor: it is what the run answers.
  DELETE FROM steprelay.step t USING steprelay.run r
   WHERE r.no = ANY (v_all) AND NOT r.pruned
     AND t.run = r.no AND t.idx < least(r.floor, r.step - 1) AND t.committed_at < p_before;
  DELETE FROM steprelay.outbox t WHERE t.run = ANY (v_all) AND t.due_at IS NULL;
  DELETE FROM steprelay.kv k WHERE k.until <= steprelay.clock(p_now);
  RETURN v_count;
END $$;


CREATE FUNCTION steprelay.put_if(p_name text, p_value text, p_ttl float8, p_expect text, p_now float8) RETURNS bool
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  v_now float8 := steprelay.clock(p_now);
BEGIN
  IF p_expect IS NULL THEN
    INSERT INTO steprelay.kv AS k (name, value, until) VALUES (p_name, p_value, v_now + p_ttl)
      ON CONFLICT (name) DO UPDATE SET value = excluded.value, until = excluded.until WHERE k.until <= v_now;
  ELSE
    UPDATE steprelay.kv k SET value = p_value, until = v_now + p_ttl
     WHERE k.name = p_name AND k.value = p_expect AND k.until > v_now;
  END IF;
  RETURN FOUND;
END $$;


CREATE FUNCTION steprelay.incr(p_name text, p_by float8, p_ttl float8, p_now float8) RETURNS float8
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  v_now float8 := steprelay.clock(p_now); v_value text;
BEGIN
  INSERT INTO steprelay.kv AS k (name, value, until) VALUES (p_name, p_by::text, v_now + p_ttl)
    ON CONFLICT (name) DO UPDATE SET
      value = CASE WHEN k.until > v_now THEN (k.value::float8 + p_by)::text ELSE excluded.value END,
      until = CASE WHEN k.until > v_now THEN k.until ELSE excluded.until END
    RETURNING k.value INTO v_value;
  RETURN v_value::float8;
END $$;
