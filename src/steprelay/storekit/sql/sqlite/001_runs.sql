-- Times are seconds since the epoch. Payloads are opaque text: nothing here, and no query, looks into them.

CREATE TABLE run (
  tenant         TEXT    NOT NULL,
  id             TEXT    NOT NULL,
  agent          TEXT    NOT NULL,
  adapter        TEXT    NOT NULL,
  prompt         TEXT,
  status         TEXT    NOT NULL,
  stop_reason    TEXT,
  due_at         REAL,               -- NULL: nobody may claim
  ended          INTEGER NOT NULL,
  step           INTEGER NOT NULL,   -- index of the next step
  round          INTEGER NOT NULL,
  fence          INTEGER NOT NULL,   -- +1 at every claim, never back
  claim_id       TEXT,               -- NULL: unheld
  holder         TEXT,
  lease_until    REAL    NOT NULL,
  attempts       INTEGER NOT NULL,   -- claims of this index, counted when claimed: a killed worker can count nothing
  carrier        TEXT    NOT NULL,
  takeover_after REAL,
  owner          TEXT,
  floor          INTEGER NOT NULL,
  wait           TEXT,
  state          TEXT,
  scratchpad     TEXT,
  limits         TEXT    NOT NULL,
  tally          TEXT    NOT NULL,
  tail           TEXT,
  inbox_read     INTEGER NOT NULL,
  create_hash    TEXT,
  parent         TEXT,
  labels         TEXT    NOT NULL,
  notify_url     TEXT,
  "schema"       INTEGER NOT NULL,
  created_at     REAL    NOT NULL,
  updated_at     REAL    NOT NULL,
  pruned         INTEGER NOT NULL,
  inbox_seq      INTEGER NOT NULL DEFAULT 0,   -- the newest number given out: none is ever used twice
  outbox_seq     INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant, id)
);

-- `due` reads the front of one of these three, so it costs the same beside a million runs that wait, ended or belong to
-- a carrier that nobody asked for.
CREATE INDEX run_due ON run (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX run_due_carrier ON run (carrier, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX run_takeover ON run (max(due_at, lease_until) + takeover_after)
  WHERE due_at IS NOT NULL AND takeover_after IS NOT NULL;
CREATE INDEX run_list ON run (tenant, created_at, id);
CREATE INDEX run_status ON run (tenant, status, created_at, id);

CREATE TABLE step (
  tenant       TEXT    NOT NULL,
  run          TEXT    NOT NULL,
  idx          INTEGER NOT NULL,
  round        INTEGER NOT NULL,
  attempt      INTEGER NOT NULL,
  carrier      TEXT    NOT NULL,
  claim_id     TEXT    NOT NULL,
  status       TEXT    NOT NULL,
  stop_reason  TEXT,
  request_id   TEXT,
  request_hash TEXT,
  messages     TEXT    NOT NULL,
  parts        TEXT    NOT NULL,
  usage        TEXT,
  state        TEXT,
  floor        INTEGER,
  claimed_at   REAL    NOT NULL,
  committed_at REAL    NOT NULL,
  PRIMARY KEY (tenant, run, idx)
);
CREATE UNIQUE INDEX step_request ON step (tenant, run, request_id) WHERE request_id IS NOT NULL;

CREATE TABLE inbox (
  tenant         TEXT    NOT NULL,
  run            TEXT    NOT NULL,
  kind           TEXT    NOT NULL,
  body           TEXT    NOT NULL,
  request_id     TEXT,
  reopens        INTEGER NOT NULL,
  carrier        TEXT,
  takeover_after REAL,
  seq            INTEGER NOT NULL,
  at             REAL    NOT NULL,
  PRIMARY KEY (tenant, run, seq)
) WITHOUT ROWID;
CREATE UNIQUE INDEX inbox_request ON inbox (tenant, run, request_id) WHERE request_id IS NOT NULL;

CREATE TABLE ledger (
  tenant TEXT NOT NULL,
  run    TEXT NOT NULL,
  key    TEXT NOT NULL,
  entry  TEXT NOT NULL,
  PRIMARY KEY (tenant, run, key)
) WITHOUT ROWID;

CREATE TABLE outbox (
  tenant     TEXT    NOT NULL,
  run        TEXT    NOT NULL,
  kind       TEXT    NOT NULL,
  target     TEXT    NOT NULL,
  body       TEXT    NOT NULL,
  request_id TEXT    NOT NULL,
  seq        INTEGER NOT NULL,
  due_at     REAL,                   -- NULL: delivered
  tries      INTEGER NOT NULL,
  PRIMARY KEY (tenant, run, seq)
) WITHOUT ROWID;
CREATE INDEX outbox_due ON outbox (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE blob (
  tenant TEXT NOT NULL,
  run    TEXT NOT NULL,
  name   TEXT NOT NULL,
  value  TEXT NOT NULL,
  PRIMARY KEY (tenant, run, name)
);

CREATE TABLE kv (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL,
  until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX kv_until ON kv (until);
