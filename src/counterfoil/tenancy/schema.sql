-- control.db, format 1. Times are Unix milliseconds. Nothing here is a secret in clear: API keys are keyed digests,
-- provider keys are sealed.

CREATE TABLE teams (
    team_id             TEXT PRIMARY KEY,
    name                TEXT,
    capture             TEXT CHECK (capture IN ('full', 'metadata', 'off')),
    content_needs_scope INTEGER NOT NULL DEFAULT 0 CHECK (content_needs_scope IN (0, 1)),
    disabled            INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    created_ms          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE apps (
    team_id    TEXT NOT NULL REFERENCES teams,
    app_id     TEXT NOT NULL,
    name       TEXT,
    disabled   INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (team_id, app_id)
) STRICT, WITHOUT ROWID;

-- team_id is null for a management key of all teams.
CREATE TABLE keys (
    key_id     TEXT PRIMARY KEY,
    kind       TEXT NOT NULL CHECK (kind IN ('inference', 'management')),
    team_id    TEXT REFERENCES teams,
    app_id     TEXT,
    name       TEXT,
    scopes     TEXT NOT NULL,
    capture    TEXT CHECK (capture IN ('full', 'metadata', 'off')),
    playback   TEXT CHECK (playback IN ('strict', 'prefer', 'off')),
    disabled   INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    created_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_ms INTEGER,
    rotated_ms INTEGER,
    revoked_ms INTEGER,
    FOREIGN KEY (team_id, app_id) REFERENCES apps,
    CHECK (kind = 'management' OR team_id IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX keys_by_team ON keys (team_id, created_ms);

-- A key has one secret, and for the grace after a rotation the ones before it.
CREATE TABLE key_secrets (
    key_id     TEXT NOT NULL REFERENCES keys,
    digest     BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    PRIMARY KEY (key_id, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE provider_keys (
    team_id    TEXT NOT NULL REFERENCES teams,
    provider   TEXT NOT NULL,
    sealed     BLOB NOT NULL,
    hint       TEXT NOT NULL,
    base_url   TEXT,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (team_id, provider)
) STRICT, WITHOUT ROWID;

-- Who changed what. Rows are only ever added.
CREATE TABLE changes (
    number  INTEGER PRIMARY KEY,
    at_ms   INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    team_id TEXT,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL
) STRICT;

CREATE INDEX changes_by_team ON changes (team_id, number);
