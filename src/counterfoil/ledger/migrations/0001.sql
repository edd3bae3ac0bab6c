-- 1: the first tables.

-- One row a record: what lists, filters and sums need, its place in its writer's chain, and the record itself, packed
-- to about 300 bytes, so that a page holds half a dozen.
CREATE TABLE generations (
    seq INTEGER PRIMARY KEY,            -- the order of commit over all writers
    id BLOB NOT NULL UNIQUE,            -- the 16 bytes of the ULID
    created_at_ms INTEGER NOT NULL,     -- admission, Unix milliseconds
    team_id TEXT NOT NULL,
    app_id TEXT,
    key_id TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    model_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    stream INTEGER NOT NULL,
    byok INTEGER NOT NULL,
    status_code INTEGER NOT NULL,
    error_code TEXT,
    latency_us INTEGER NOT NULL,
    generation_us INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost_nanos INTEGER NOT NULL,
    cost_state TEXT NOT NULL,
    unpriced TEXT,                      -- the meters without a price, one a line; null when none is missing
    paid_nanos INTEGER,                 -- of cost_nanos, what the team's own key paid; null: it was not used
    fee_nanos INTEGER,                  -- what the operator charges where the team's own key paid; null: no fee
    fee_state TEXT,
    provider_cost_nanos INTEGER,        -- what the provider itself said it cost
    capture_state TEXT NOT NULL,        -- when the record was written
    expires_at_ms INTEGER,              -- when its bodies may go; null without bodies
    native_response_id TEXT,
    native_key INTEGER,                 -- CRC-32 of native_response_id; likewise below
    session_id TEXT,
    session_key INTEGER,
    replay_of TEXT,
    replay_key INTEGER,
    end_user TEXT,
    end_user_key INTEGER,
    writer INTEGER NOT NULL,
    sequence INTEGER NOT NULL,          -- the writer's own count, from 1, without gaps
    digest BLOB NOT NULL,               -- SHA-256(the writer's previous digest ‖ the record's canonical bytes)
    record BLOB NOT NULL                -- the canonical bytes, packed (packing.py)
) STRICT;

-- The sealed bodies of each call that has any, until they expire or are erased.
CREATE TABLE bodies (
    seq INTEGER PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT;

-- Bodies that were erased before their time; signed, so that a deleted body cannot pass for an erased one.
CREATE TABLE erasures (
    seq INTEGER PRIMARY KEY,
    erased_at_ms INTEGER NOT NULL,
    reason TEXT NOT NULL,
    signature BLOB NOT NULL
) STRICT;

-- The teams' data keys, wrapped.
CREATE TABLE data_keys (
    key_id INTEGER PRIMARY KEY AUTOINCREMENT,   -- never used again after a key was destroyed
    team_id TEXT NOT NULL,
    wrapped BLOB NOT NULL
) STRICT;
CREATE INDEX data_keys_team ON data_keys (team_id, key_id);

-- Signed statements about a stretch of one writer's chain: first … last, its digests and its end.
CREATE TABLE checkpoints (
    number INTEGER PRIMARY KEY,
    writer INTEGER NOT NULL,
    first_sequence INTEGER NOT NULL,    -- last_sequence + 1 when the writer was idle
    last_sequence INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,          -- the newest record of any writer when it was signed
    statement BLOB NOT NULL,            -- canonical JSON
    signature BLOB NOT NULL             -- Ed25519 over statement
) STRICT;
CREATE INDEX checkpoints_writer ON checkpoints (writer, last_sequence);

-- How far the derived tables below go.
CREATE TABLE indexed (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seq INTEGER NOT NULL
) STRICT;

-- A team's records by time of admission.
CREATE TABLE by_team (
    team_id TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (team_id, created_at_ms, seq)
) STRICT, WITHOUT ROWID;

-- All records by time of admission.
CREATE TABLE by_time (
    created_at_ms INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (created_at_ms, seq)
) STRICT, WITHOUT ROWID;

-- Exact values that have many different ones: kind 1 native_response_id, 2 session_id, 3 replay_of, 4 end_user.
-- Cut in segments of 65,536 records, because values come in random order: one index over all of them would dirty a page
-- for every row, while a segment's part of it stays small enough that a pass of rows shares its pages.
CREATE TABLE by_value (
    kind INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    key INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (kind, segment, key, seq DESC)
) STRICT, WITHOUT ROWID;

-- Bodies by the hour in which they expire.
CREATE TABLE by_expiry (
    hour INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (hour, seq)
) STRICT, WITHOUT ROWID;

-- Where each writer's chain ended at the last pass.
CREATE TABLE writers (
    writer INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL
) STRICT;

INSERT INTO indexed (one, seq) VALUES (1, 0);
