-- replays/runs.db: what of bulk runs cannot be derived from the ledger, and figures that can (results, verdicts).

CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    team_id TEXT NOT NULL,
    key_id TEXT NOT NULL,               -- the key the run acts as
    created_ms INTEGER NOT NULL,
    state TEXT NOT NULL,                -- running, finished, cancelled, stopped
    reason TEXT,                        -- why it was stopped
    finished_ms INTEGER,
    items INTEGER NOT NULL,
    budget_nanos INTEGER,
    excluded TEXT NOT NULL,             -- JSON: how many generations were left out, by reason
    sealed BLOB NOT NULL                -- the secret of its ids and what was asked, sealed
) STRICT;
CREATE INDEX runs_team ON runs (team_id, created_ms);

-- The generations a run reruns, in its order, frozen at the start.
CREATE TABLE items (
    run_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    generation BLOB NOT NULL,           -- the 16 bytes of the id
    PRIMARY KEY (run_id, number)
) STRICT, WITHOUT ROWID;

-- What came of each item at each target: figures only, no text. A cache of the ledger.
CREATE TABLE results (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL,
    item INTEGER NOT NULL,
    target INTEGER NOT NULL,
    state TEXT NOT NULL,
    spent_nanos INTEGER NOT NULL,
    held_nanos INTEGER NOT NULL,        -- estimates in the place of costs that are not known
    interrupted INTEGER NOT NULL,       -- calls in flight when a gateway died
    calls INTEGER NOT NULL,
    data TEXT NOT NULL,                 -- JSON of a Result
    UNIQUE (run_id, item, target)
) STRICT;

-- Verdicts from outside the gateway.
CREATE TABLE verdicts (
    run_id TEXT NOT NULL,
    item INTEGER NOT NULL,
    target INTEGER NOT NULL,
    judge TEXT NOT NULL,
    data TEXT NOT NULL,                 -- JSON of a Verdict
    PRIMARY KEY (run_id, item, target, judge)
) STRICT, WITHOUT ROWID;
