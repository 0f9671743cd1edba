CREATE TABLE prompts (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    messages TEXT NOT NULL,
    part TEXT NOT NULL,
    answer TEXT,
    source TEXT NOT NULL DEFAULT '',
    meta TEXT NOT NULL DEFAULT '{}',
    created REAL NOT NULL
) STRICT;

CREATE TABLE completions (
    id INTEGER PRIMARY KEY,
    prompt INTEGER NOT NULL REFERENCES prompts (id),
    run TEXT NOT NULL,
    k INTEGER NOT NULL,
    text TEXT NOT NULL,
    checkpoint TEXT NOT NULL DEFAULT '',
    sampling TEXT NOT NULL DEFAULT '{}',
    ended TEXT NOT NULL DEFAULT '',
    author TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL,
    UNIQUE (run, prompt, k)
) STRICT;
CREATE INDEX completions_of_prompt ON completions (prompt);

CREATE TABLE sets (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    mode TEXT NOT NULL CHECK (mode IN ('rank', 'pair', 'rate', 'write')),
    people INTEGER NOT NULL DEFAULT 1,
    repeat_share REAL NOT NULL DEFAULT 0,
    created REAL NOT NULL
) STRICT;

CREATE TABLE set_prompts (
    set_id INTEGER NOT NULL REFERENCES sets (id),
    place INTEGER NOT NULL,
    prompt INTEGER NOT NULL REFERENCES prompts (id),
    candidates TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (set_id, place),
    UNIQUE (set_id, prompt, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE labels (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('rank', 'pair', 'rate', 'write', 'skip', 'flag', 'undo')),
    set_id INTEGER NOT NULL REFERENCES sets (id),
    place INTEGER NOT NULL,
    prompt INTEGER NOT NULL REFERENCES prompts (id),
    annotator TEXT NOT NULL,
    shown TEXT NOT NULL DEFAULT '[]',
    ranks TEXT,
    scores TEXT,
    completion INTEGER REFERENCES completions (id),
    verdict TEXT NOT NULL DEFAULT '',
    note TEXT NOT NULL DEFAULT '',
    origin TEXT NOT NULL DEFAULT '',
    seconds REAL NOT NULL DEFAULT 0,
    repeats INTEGER REFERENCES labels (id),
    supersedes INTEGER UNIQUE REFERENCES labels (id),
    created REAL NOT NULL
) STRICT;
CREATE INDEX labels_of_place ON labels (set_id, place);
CREATE INDEX labels_of_annotator ON labels (annotator, set_id);
CREATE INDEX labels_again ON labels (repeats) WHERE repeats IS NOT NULL;

CREATE TABLE leases (
    set_id INTEGER NOT NULL,
    place INTEGER NOT NULL,
    annotator TEXT NOT NULL,
    holder TEXT NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (set_id, place, holder)
) STRICT, WITHOUT ROWID;

CREATE VIEW in_force AS
    SELECT * FROM labels AS l
    WHERE kind <> 'undo' AND NOT EXISTS (SELECT 1 FROM labels WHERE supersedes = l.id);
CREATE VIEW rankings AS SELECT * FROM in_force WHERE kind IN ('rank', 'pair', 'rate');
CREATE VIEW written AS SELECT * FROM in_force WHERE kind = 'write';
CREATE VIEW flags AS SELECT * FROM in_force WHERE kind = 'flag';

CREATE TRIGGER labels_stay BEFORE UPDATE ON labels BEGIN SELECT RAISE(ABORT, 'labels are never changed'); END;
CREATE TRIGGER labels_remain BEFORE DELETE ON labels BEGIN SELECT RAISE(ABORT, 'labels are never removed'); END;
