-- Every statement the ledger runs, but for the inserts of a batch (store.py) and those of a filter (filters.py).
-- A statement begins with `-- name:`; the comment lines that follow say what it gives.

-- name: last_seq
-- The place of the newest record; 0 in an empty ledger.
SELECT coalesce(max(seq), 0) FROM generations

-- name: has_record
-- Whether there is a record with this id.
SELECT 1 FROM generations WHERE id = ?

-- name: indexed_seq
-- How far the derived tables go.
SELECT seq FROM indexed WHERE one = 1

-- name: chain_end_indexed
-- The end of a writer's chain as the derived tables know it.
SELECT g.sequence, g.digest FROM writers w JOIN generations g ON g.seq = w.seq WHERE w.writer = ?

-- name: chain_end_tail
-- The end of a writer's chain among the records behind the derived tables.
SELECT sequence, digest FROM generations WHERE seq > ? AND writer = ? ORDER BY seq DESC LIMIT 1

-- name: digests_after
-- The digests of one writer's chain after a sequence, in order, read from the records behind a seq.
SELECT digest FROM generations WHERE seq > ? AND writer = ? AND sequence > ? ORDER BY seq

-- name: index_by_team
INSERT INTO by_team SELECT team_id, created_at_ms, seq FROM generations WHERE seq > ?1 AND seq <= ?2 ORDER BY 1, 2, 3

-- name: index_by_time
INSERT INTO by_time SELECT created_at_ms, seq FROM generations WHERE seq > ?1 AND seq <= ?2 ORDER BY 1, 2

-- name: index_by_value
INSERT INTO by_value
SELECT 1, seq >> 16, native_key, seq FROM generations WHERE seq > ?1 AND seq <= ?2 AND native_key NOT NULL
UNION ALL
SELECT 2, seq >> 16, session_key, seq FROM generations WHERE seq > ?1 AND seq <= ?2 AND session_key NOT NULL
UNION ALL
SELECT 3, seq >> 16, replay_key, seq FROM generations WHERE seq > ?1 AND seq <= ?2 AND replay_key NOT NULL
UNION ALL
SELECT 4, seq >> 16, end_user_key, seq FROM generations WHERE seq > ?1 AND seq <= ?2 AND end_user_key NOT NULL
ORDER BY 1, 2, 3

-- name: index_by_expiry
INSERT INTO by_expiry
SELECT expires_at_ms / 3600000, seq FROM generations WHERE seq > ?1 AND seq <= ?2 AND expires_at_ms NOT NULL ORDER BY 1, 2

-- name: index_writers
INSERT OR REPLACE INTO writers SELECT writer, max(seq) FROM generations WHERE seq > ?1 AND seq <= ?2 GROUP BY writer

-- name: set_indexed_seq
UPDATE indexed SET seq = ? WHERE one = 1

-- name: probe
-- Writes a page and says nothing new.
UPDATE indexed SET seq = seq WHERE one = 1

-- name: find_by_id
-- One record by our id, of one team (or of any: team null).
SELECT g.seq, g.id, g.team_id, g.capture_state, g.writer, g.sequence, g.digest, g.record
FROM generations g WHERE g.id = ?1 AND (?2 IS NULL OR g.team_id = ?2)

-- name: find_native_tail
-- The newest record with a provider's id, among those behind the derived tables.
SELECT g.seq, g.id, g.team_id, g.capture_state, g.writer, g.sequence, g.digest, g.record
FROM generations g
WHERE g.seq > ?1 AND g.native_key = ?2 AND g.native_response_id = ?3 AND (?4 IS NULL OR g.team_id = ?4)
ORDER BY g.seq DESC LIMIT 1

-- name: find_native_segments
-- The newest record with a provider's id in ?5 segments of by_value, of which ?1 is the newest: a seek for each.
SELECT g.seq, g.id, g.team_id, g.capture_state, g.writer, g.sequence, g.digest, g.record
FROM by_value v JOIN generations g ON g.seq = v.seq
WHERE v.kind = 1 AND v.key = ?2 AND v.segment IN (
    WITH RECURSIVE some (segment) AS (SELECT ?1 UNION ALL SELECT segment - 1 FROM some WHERE segment > ?1 - ?5 + 1)
    SELECT segment FROM some)
AND g.native_response_id = ?3 AND (?4 IS NULL OR g.team_id = ?4)
ORDER BY v.seq DESC LIMIT 1

-- name: record_data
-- The packed canonical bytes of the record with this id.
SELECT record FROM generations WHERE id = ?

-- name: body
SELECT sealed FROM bodies WHERE seq = ?

-- name: body_exists
SELECT 1 FROM bodies WHERE seq = ?

-- name: body_chain
-- A body and all that must be read for it, what comes first at the beginning: their ids and blobs.
WITH RECURSIVE chain (seq, depth) AS (
    SELECT ?1, 0
    UNION ALL
    SELECT s.base, chain.depth + 1 FROM chain JOIN shared s ON s.seq = chain.seq WHERE chain.depth < ?2)
SELECT chain.seq, g.id, b.sealed FROM chain JOIN bodies b ON b.seq = chain.seq JOIN generations g ON g.seq = chain.seq
ORDER BY chain.depth DESC

-- name: shared_base
-- What the body at a place was packed against.
SELECT base FROM shared WHERE seq = ?

-- name: add_shared
INSERT INTO shared (seq, base) VALUES (?, ?)

-- name: delete_shared
DELETE FROM shared WHERE seq = ?

-- name: packed_against
-- Whose bodies cannot be read without the body at a place.
SELECT s.seq, g.id, g.team_id FROM shared s JOIN generations g ON g.seq = s.seq WHERE s.base = ?

-- name: replace_body
UPDATE bodies SET sealed = ? WHERE seq = ?

-- name: erasure
SELECT 1 FROM erasures WHERE seq = ?

-- name: stats
-- Whole-ledger counts. Records and bodies are counted over the narrowest table that knows.
SELECT
    (SELECT count(*) FROM generations),
    (SELECT count(*) FROM bodies),
    (SELECT count(*) FROM erasures),
    (SELECT count(*) FROM checkpoints),
    (SELECT coalesce(max(seq), 0) FROM generations) - (SELECT seq FROM indexed WHERE one = 1)

-- name: newest_data_key
SELECT key_id, wrapped FROM data_keys WHERE team_id = ? ORDER BY key_id DESC LIMIT 1

-- name: wrapped_keys
SELECT key_id, team_id, wrapped FROM data_keys ORDER BY key_id

-- name: rewrap_key
UPDATE data_keys SET wrapped = ?1 WHERE key_id = ?2

-- name: data_key
SELECT key_id, wrapped FROM data_keys WHERE key_id = ?

-- name: data_keys
-- Every key and whose it is.
SELECT team_id, key_id FROM data_keys

-- name: add_data_key
INSERT INTO data_keys (team_id, wrapped) VALUES (?, ?) RETURNING key_id

-- name: add_checkpoint
INSERT INTO checkpoints (writer, first_sequence, last_sequence, last_seq, statement, signature)
VALUES (?, ?, ?, ?, ?, ?)

-- name: newest_checkpoint
SELECT statement FROM checkpoints ORDER BY number DESC LIMIT 1

-- name: newest_checkpoint_of
SELECT statement, signature FROM checkpoints WHERE writer = ? ORDER BY last_sequence DESC, number DESC LIMIT 1

-- name: checkpoint_writers
SELECT DISTINCT writer FROM checkpoints

-- name: last_checkpoint
-- The newest checkpoint of one writer.
SELECT last_sequence, last_seq FROM checkpoints WHERE writer = ?
ORDER BY last_sequence DESC, number DESC LIMIT 1

-- name: covering_checkpoint
-- The checkpoint that covers one place of one writer's chain.
SELECT first_sequence, last_sequence, last_seq, statement, signature FROM checkpoints
WHERE writer = ?1 AND last_sequence >= ?2 AND first_sequence <= ?2 ORDER BY last_sequence LIMIT 1

-- name: checkpoints
SELECT writer, first_sequence, last_sequence, last_seq, statement, signature FROM checkpoints ORDER BY number

-- name: checkpoints_after
SELECT number, statement, signature FROM checkpoints WHERE number > ?1 ORDER BY number LIMIT ?2

-- name: checkpoints_before
SELECT number, statement, signature FROM checkpoints WHERE ?1 IS NULL OR number < ?1 ORDER BY number DESC LIMIT ?2

-- name: chain_records
-- Everything the verification of the chain reads, in the order of commit.
SELECT seq, writer, sequence, digest, record FROM generations WHERE seq > ?1 AND seq <= ?2 ORDER BY seq

-- name: deep_records
-- What a whole verification reads: the chain's, then each record's bodies, its erasure, and its columns, in the order of
-- GENERATION_COLUMNS from id on.
SELECT g.seq, g.writer, g.sequence, g.digest, g.record, b.sealed, e.erased_at_ms, e.reason, e.signature,
    g.id, g.created_at_ms, g.team_id, g.app_id, g.key_id, g.endpoint, g.model_id, g.provider, g.stream, g.byok,
    g.status_code, g.error_code, g.latency_us, g.generation_us, g.prompt_tokens, g.completion_tokens, g.cost_nanos,
    g.cost_state, g.unpriced, g.paid_nanos, g.fee_nanos, g.fee_state, g.provider_cost_nanos,
    g.capture_state, g.expires_at_ms, g.native_response_id, g.native_key, g.session_id, g.session_key,
    g.replay_of, g.replay_key, g.end_user, g.end_user_key
FROM generations g LEFT JOIN bodies b ON b.seq = g.seq LEFT JOIN erasures e ON e.seq = g.seq WHERE g.seq > ?1 AND g.seq <= ?2
ORDER BY g.seq

-- name: stray_rows
-- Rows of the other tables that no record explains.
SELECT 'bodies', count(*) FROM bodies WHERE seq NOT IN (SELECT seq FROM generations)
UNION ALL
SELECT 'erasures', count(*) FROM erasures WHERE seq NOT IN (SELECT seq FROM generations)
UNION ALL
SELECT 'shared', count(*) FROM shared
WHERE seq NOT IN (SELECT seq FROM bodies) OR base NOT IN (SELECT seq FROM bodies)

-- name: derived_differences
-- How many rows each derived table has too few or too many. A record explains one row, so a table is right when none of
-- its records lacks its row and there are no more rows than records; that needs no sorting of either, and one walk over
-- the records. (total() is 0 where there are no records, sum() would be null.)
WITH done (seq) AS (SELECT seq FROM indexed WHERE one = 1),
lacking (records, by_team, by_time, keys, by_value) AS MATERIALIZED (
    SELECT
        count(*),
        total(NOT EXISTS (SELECT 1 FROM by_team i
            WHERE i.team_id = g.team_id AND i.created_at_ms = g.created_at_ms AND i.seq = g.seq)),
        total(NOT EXISTS (SELECT 1 FROM by_time i WHERE i.created_at_ms = g.created_at_ms AND i.seq = g.seq)),
        total((native_key NOT NULL) + (session_key NOT NULL) + (replay_key NOT NULL) + (end_user_key NOT NULL)),
        total(native_key NOT NULL AND NOT EXISTS (SELECT 1 FROM by_value i
            WHERE i.kind = 1 AND i.segment = g.seq >> 16 AND i.key = g.native_key AND i.seq = g.seq))
        + total(session_key NOT NULL AND NOT EXISTS (SELECT 1 FROM by_value i
            WHERE i.kind = 2 AND i.segment = g.seq >> 16 AND i.key = g.session_key AND i.seq = g.seq))
        + total(replay_key NOT NULL AND NOT EXISTS (SELECT 1 FROM by_value i
            WHERE i.kind = 3 AND i.segment = g.seq >> 16 AND i.key = g.replay_key AND i.seq = g.seq))
        + total(end_user_key NOT NULL AND NOT EXISTS (SELECT 1 FROM by_value i
            WHERE i.kind = 4 AND i.segment = g.seq >> 16 AND i.key = g.end_user_key AND i.seq = g.seq))
    FROM generations g WHERE g.seq <= (SELECT seq FROM done)),
ends (writer, seq) AS MATERIALIZED (
    SELECT writer, max(seq) FROM generations WHERE seq <= (SELECT seq FROM done) GROUP BY writer)
SELECT 'by_team', abs((SELECT count(*) FROM by_team) - records) + by_team FROM lacking
UNION ALL SELECT 'by_time', abs((SELECT count(*) FROM by_time) - records) + by_time FROM lacking
UNION ALL SELECT 'by_value', abs((SELECT count(*) FROM by_value) - keys) + by_value FROM lacking
UNION ALL SELECT 'by_expiry', count(*) FROM (
    SELECT g.expires_at_ms / 3600000, g.seq FROM generations g JOIN bodies b ON b.seq = g.seq
    WHERE g.expires_at_ms NOT NULL AND g.seq <= (SELECT seq FROM done)
    EXCEPT SELECT hour, seq FROM by_expiry)
UNION ALL SELECT 'writers', count(*) FROM (
    SELECT * FROM (SELECT writer, seq FROM ends EXCEPT SELECT writer, seq FROM writers)
    UNION ALL SELECT * FROM (SELECT writer, seq FROM writers EXCEPT SELECT writer, seq FROM ends))

-- name: expired
-- Bodies whose hour has passed and whose time has come, the newest first: what was packed against another goes before it.
-- Only hours wholly indexed are swept.
SELECT v.hour, v.seq FROM by_expiry v JOIN generations g ON g.seq = v.seq
WHERE v.hour <= ?1 / 3600000 AND g.expires_at_ms <= ?1 ORDER BY v.hour DESC, v.seq DESC LIMIT ?2

-- name: delete_body
DELETE FROM bodies WHERE seq = ?

-- name: delete_expiry
DELETE FROM by_expiry WHERE hour = ? AND seq = ?

-- name: add_erasure
INSERT OR IGNORE INTO erasures (seq, erased_at_ms, reason, signature) VALUES (?, ?, ?, ?)

-- name: stretch
-- The last digests of one writer's chain up to a seq, newest first.
SELECT sequence, digest FROM generations WHERE seq <= ?1 AND writer = ?2 ORDER BY seq DESC LIMIT ?3

-- name: seqs_of_team_after
-- The places of one team's records behind a place, over the derived table and the records behind it.
SELECT seq FROM by_team WHERE team_id = ?1 AND seq > ?2
UNION ALL
SELECT seq FROM generations WHERE seq > (SELECT seq FROM indexed WHERE one = 1) AND seq > ?2 AND team_id = ?1

-- name: seqs_of_team_tail
-- The same where few records of any team are behind that place.
SELECT seq FROM generations WHERE seq > ?2 AND team_id = ?1

-- name: recorded
-- What tells whether a record's bodies can be played, and the bodies.
SELECT g.id, g.created_at_ms, g.endpoint, g.provider, g.error_code, b.sealed
FROM generations g JOIN bodies b ON b.seq = g.seq WHERE g.seq = ?

-- name: id_at
-- The id of the record at a place.
SELECT id FROM generations WHERE seq = ?

-- name: records_after
-- Records behind a place, in the order of commit.
SELECT g.seq, g.id, g.team_id, g.capture_state, g.writer, g.sequence, g.digest, g.record
FROM generations g WHERE g.seq > ?1 ORDER BY g.seq LIMIT ?2
