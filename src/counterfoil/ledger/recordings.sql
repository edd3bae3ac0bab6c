-- playback.db: which of a team's records can be played, by match key. Wholly derived from the ledger; it may be deleted.

-- name: schema
-- A profile is a team and what is left out of the match; `position` is how far in the ledger its recordings are known.
CREATE TABLE profiles (
    profile INTEGER PRIMARY KEY,
    team_id TEXT NOT NULL,
    ignored TEXT NOT NULL,
    position INTEGER NOT NULL DEFAULT 0,
    identity BLOB,                      -- the id of the record at `position`: another one means another ledger
    used_ms INTEGER NOT NULL,
    UNIQUE (team_id, ignored)
) STRICT;
CREATE TABLE recordings (
    profile INTEGER NOT NULL,
    key BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL,
    identity BLOB NOT NULL,
    seq INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    success INTEGER NOT NULL,
    PRIMARY KEY (profile, key, created_at_ms, identity)
) STRICT, WITHOUT ROWID;
CREATE INDEX recordings_kind ON recordings (profile, kind, created_at_ms);
CREATE TABLE cursors (
    key_id TEXT NOT NULL,
    session TEXT NOT NULL,
    key BLOB NOT NULL,
    played INTEGER NOT NULL,
    used_ms INTEGER NOT NULL,
    PRIMARY KEY (key_id, session, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX cursors_used ON cursors (used_ms);

-- name: profile
SELECT profile, position, identity FROM profiles WHERE team_id = ? AND ignored = ?

-- name: add_profile
INSERT OR IGNORE INTO profiles (team_id, ignored, used_ms) VALUES (?, ?, ?)

-- name: use_profile
UPDATE profiles SET used_ms = ? WHERE profile = ?

-- name: old_profiles
-- A team's profiles beyond the number that is kept, the least recently used ones.
SELECT profile FROM profiles WHERE team_id = ? ORDER BY used_ms DESC, profile DESC LIMIT -1 OFFSET ?

-- name: delete_profile
DELETE FROM profiles WHERE profile = ?

-- name: delete_recordings
DELETE FROM recordings WHERE profile = ?

-- name: advance
UPDATE profiles SET position = ?1, identity = ?2 WHERE profile = ?3 AND position < ?1

-- name: rewind
UPDATE profiles SET position = 0, identity = NULL WHERE profile = ?

-- name: add_recording
INSERT OR IGNORE INTO recordings (profile, key, created_at_ms, identity, seq, kind, success)
VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: count
SELECT count(*) FROM recordings WHERE profile = ?1 AND key = ?2 AND success >= ?3

-- name: nth
SELECT identity, created_at_ms FROM recordings WHERE profile = ?1 AND key = ?2 AND success >= ?3
ORDER BY created_at_ms, identity LIMIT 1 OFFSET ?4

-- name: forget
DELETE FROM recordings WHERE profile = ? AND key = ? AND created_at_ms = ? AND identity = ?

-- name: newest_of_kind
SELECT seq FROM recordings WHERE profile = ? AND kind = ? ORDER BY created_at_ms DESC LIMIT ?

-- name: next_play
-- How often this sequence was played before.
INSERT INTO cursors (key_id, session, key, played, used_ms) VALUES (?1, ?2, ?3, 1, ?4)
ON CONFLICT DO UPDATE SET played = played + 1, used_ms = ?4
RETURNING played - 1

-- name: delete_old_cursors
DELETE FROM cursors WHERE used_ms < ?
