-- 2: bodies that repeat another one.

-- Bodies that were packed against another body of the same key (capture/sharing.py) and cannot be read without it. Before
-- a base goes, those that need it are packed anew.
CREATE TABLE shared (
    seq INTEGER PRIMARY KEY,
    base INTEGER NOT NULL
) STRICT;
CREATE INDEX shared_base ON shared (base);
