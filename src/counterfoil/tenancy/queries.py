"""Every statement of tenancy, whole and literal: nothing is ever spliced into SQL."""

from __future__ import annotations

from typing import Final, LiteralString

TEAM: Final = "SELECT team_id, name, capture, content_needs_scope, disabled, created_ms FROM teams WHERE team_id = ?"
TEAMS: Final = "SELECT team_id, name, capture, content_needs_scope, disabled, created_ms FROM teams ORDER BY team_id"
INSERT_TEAM: Final = """
INSERT INTO teams (team_id, name, capture, content_needs_scope, disabled, created_ms) VALUES (?, ?, ?, ?, 0, ?)
"""
SET_TEAM: Final = "UPDATE teams SET name = ?, capture = ?, content_needs_scope = ?, disabled = ? WHERE team_id = ?"

APP: Final = "SELECT team_id, app_id, name, disabled, created_ms FROM apps WHERE team_id = ? AND app_id = ?"
APPS: Final = """
SELECT team_id, app_id, name, disabled, created_ms FROM apps
WHERE ?1 IS NULL OR team_id = ?1
ORDER BY team_id, app_id
"""
INSERT_APP: Final = "INSERT INTO apps (team_id, app_id, name, disabled, created_ms) VALUES (?, ?, ?, 0, ?)"
SET_APP: Final = "UPDATE apps SET name = ?, disabled = ? WHERE team_id = ? AND app_id = ?"

KEY: Final = """
SELECT key_id, kind, team_id, app_id, name, scopes, capture, playback, disabled, created_ms, created_by, expires_ms,
       rotated_ms, revoked_ms
FROM keys WHERE key_id = ?
"""
KEYS: Final = """
SELECT key_id, kind, team_id, app_id, name, scopes, capture, playback, disabled, created_ms, created_by, expires_ms,
       rotated_ms, revoked_ms
FROM keys WHERE (?1 IS NULL OR team_id = ?1) AND (?2 IS NULL OR kind = ?2)
ORDER BY created_ms DESC, key_id
"""
INSERT_KEY: Final = """
INSERT INTO keys (key_id, kind, team_id, app_id, name, scopes, capture, playback, created_ms, created_by, expires_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
SET_KEY: Final[dict[str, LiteralString]] = {
    "name": "UPDATE keys SET name = ? WHERE key_id = ?",
    "capture": "UPDATE keys SET capture = ? WHERE key_id = ?",
    "playback": "UPDATE keys SET playback = ? WHERE key_id = ?",
    "expires_ms": "UPDATE keys SET expires_ms = ? WHERE key_id = ?",
    "disabled": "UPDATE keys SET disabled = ? WHERE key_id = ?",
    "rotated_ms": "UPDATE keys SET rotated_ms = ? WHERE key_id = ?",
    "revoked_ms": "UPDATE keys SET revoked_ms = ? WHERE key_id = ?",
}

ADD_DIGEST: Final = "INSERT INTO key_secrets (key_id, digest, created_ms, expires_ms) VALUES (?, ?, ?, NULL)"
END_DIGESTS: Final = "UPDATE key_secrets SET expires_ms = min(coalesce(expires_ms, ?1), ?1) WHERE key_id = ?2"
FORGET_DIGESTS: Final = "DELETE FROM key_secrets WHERE key_id = ? AND expires_ms <= ?"

HOLDER: Final = """
SELECT s.digest, s.expires_ms, k.kind, k.team_id, k.app_id, k.scopes, k.capture, k.disabled, k.expires_ms, k.revoked_ms,
       t.capture, t.content_needs_scope, t.disabled, a.disabled, k.playback
FROM key_secrets AS s
JOIN keys AS k USING (key_id)
LEFT JOIN teams AS t ON t.team_id = k.team_id
LEFT JOIN apps AS a ON a.team_id = k.team_id AND a.app_id = k.app_id
WHERE s.key_id = ?
"""
"""Everything about the holder of a key, once per secret that the key has."""

SEALED_KEYS: Final = "SELECT provider, sealed, base_url FROM provider_keys WHERE team_id = ?"
PROVIDER_KEYS: Final = """
SELECT team_id, provider, hint, base_url, created_ms FROM provider_keys
WHERE (?1 IS NULL OR team_id = ?1) AND (?2 IS NULL OR provider = ?2)
ORDER BY team_id, provider
"""
PUT_PROVIDER_KEY: Final = """
INSERT OR REPLACE INTO provider_keys (team_id, provider, sealed, hint, base_url, created_ms) VALUES (?, ?, ?, ?, ?, ?)
"""
REMOVE_PROVIDER_KEY: Final = "DELETE FROM provider_keys WHERE team_id = ? AND provider = ?"

INSERT_CHANGE: Final = "INSERT INTO changes (at_ms, actor, action, team_id, subject, detail) VALUES (?, ?, ?, ?, ?, ?)"
CHANGES: Final = """
SELECT number, at_ms, actor, action, team_id, subject, detail FROM changes
WHERE (?1 IS NULL OR team_id = ?1) AND (?2 IS NULL OR number < ?2)
ORDER BY number DESC LIMIT ?3
"""
