"""The shape of a project's database, as numbered steps; each runs once, in one transaction.

A new shape is a new function at the end of `STEPS`; a step that has been released is never edited.
"""

from __future__ import annotations

import sqlite3

from labeling.records import UserError
from labeling.sqlite import Database

FIRST = """
CREATE TABLE prompt (
    id TEXT PRIMARY KEY, messages TEXT NOT NULL, split TEXT NOT NULL, category TEXT NOT NULL
) STRICT;
CREATE TABLE slate (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, prompt_id TEXT NOT NULL REFERENCES prompt(id),
    k INTEGER NOT NULL, run TEXT NOT NULL, iteration INTEGER NOT NULL, selector TEXT NOT NULL,
    propensity REAL NOT NULL, reward_model TEXT NOT NULL, predicted TEXT NOT NULL, created REAL NOT NULL
) STRICT;
CREATE INDEX slate_run ON slate(run, iteration);
CREATE TABLE candidate (
    slate_id TEXT NOT NULL REFERENCES slate(id), position INTEGER NOT NULL, text TEXT NOT NULL,
    policy TEXT NOT NULL, finished INTEGER NOT NULL, PRIMARY KEY (slate_id, position)
) STRICT;
CREATE TABLE annotator (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, weight REAL NOT NULL, flip_rate REAL NOT NULL
) STRICT;
CREATE TABLE label (
    seq INTEGER PRIMARY KEY, client_key TEXT NOT NULL UNIQUE, slate_id TEXT NOT NULL REFERENCES slate(id),
    annotator TEXT NOT NULL REFERENCES annotator(id), outcome TEXT NOT NULL, ranks TEXT, probability REAL,
    strength REAL, display_order TEXT NOT NULL, seconds REAL, reason TEXT NOT NULL, supersedes TEXT UNIQUE,
    created REAL NOT NULL
) STRICT;
CREATE INDEX label_slate ON label(slate_id);
CREATE INDEX label_annotator ON label(annotator);
CREATE VIEW standing AS
    SELECT label.* FROM label LEFT JOIN label AS later ON later.supersedes = label.client_key
    WHERE later.seq IS NULL AND label.outcome != 'undone';
CREATE TABLE lease (
    slate_id TEXT NOT NULL REFERENCES slate(id), annotator TEXT NOT NULL REFERENCES annotator(id),
    display_order TEXT NOT NULL, expires REAL NOT NULL, PRIMARY KEY (slate_id, annotator)
) STRICT;
CREATE TABLE judge_call (
    key TEXT PRIMARY KEY, annotator TEXT NOT NULL, slate_id TEXT NOT NULL, reply TEXT NOT NULL,
    outcome TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, reply_tokens INTEGER NOT NULL, seconds REAL NOT NULL,
    created REAL NOT NULL
) STRICT;
CREATE TABLE run_event (
    seq INTEGER PRIMARY KEY, run TEXT NOT NULL, iteration INTEGER NOT NULL, kind TEXT NOT NULL,
    data TEXT NOT NULL, created REAL NOT NULL
) STRICT;
CREATE INDEX run_event_run ON run_event(run, iteration);
CREATE TABLE fit_label (
    run TEXT NOT NULL, iteration INTEGER NOT NULL, client_key TEXT NOT NULL REFERENCES label(client_key),
    PRIMARY KEY (run, iteration, client_key)
) STRICT;
"""


SECOND = """
ALTER TABLE candidate ADD COLUMN clip TEXT NOT NULL DEFAULT '';
CREATE TABLE segment (
    id TEXT PRIMARY KEY, environment TEXT NOT NULL, seed INTEGER NOT NULL, start INTEGER NOT NULL,
    actions BLOB NOT NULL, steps BLOB NOT NULL, gold REAL NOT NULL, ended INTEGER NOT NULL, created REAL NOT NULL
) STRICT;
ALTER TABLE lease ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
"""

THIRD = """
ALTER TABLE label ADD COLUMN unranked TEXT NOT NULL DEFAULT '[]';
ALTER TABLE label ADD COLUMN flags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE label ADD COLUMN criteria TEXT NOT NULL DEFAULT '[]';
ALTER TABLE label ADD COLUMN purpose TEXT NOT NULL DEFAULT 'teach';
ALTER TABLE lease ADD COLUMN purpose TEXT NOT NULL DEFAULT 'teach';
DROP VIEW standing;
CREATE VIEW standing AS
    SELECT label.* FROM label LEFT JOIN label AS later ON later.supersedes = label.client_key
    WHERE later.seq IS NULL AND label.outcome != 'undone' AND label.purpose != 'repeat';
CREATE VIEW repeated AS
    SELECT label.* FROM label LEFT JOIN label AS later ON later.supersedes = label.client_key
    WHERE later.seq IS NULL AND label.outcome != 'undone' AND label.purpose = 'repeat';
CREATE TABLE gold_item (
    slate_id TEXT PRIMARY KEY REFERENCES slate(id), ranks TEXT NOT NULL
) STRICT;
CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE account (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, password TEXT NOT NULL, created REAL NOT NULL, closed REAL
) STRICT;
CREATE TABLE invite (
    token TEXT PRIMARY KEY, role TEXT NOT NULL, created_by TEXT NOT NULL, created REAL NOT NULL,
    expires REAL NOT NULL, used_by TEXT
) STRICT;
CREATE TABLE session (
    token TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES account(name), kind TEXT NOT NULL, note TEXT NOT NULL,
    created REAL NOT NULL, expires REAL NOT NULL
) STRICT;
CREATE TABLE failed_login (who TEXT PRIMARY KEY, count INTEGER NOT NULL, until REAL NOT NULL) STRICT;
CREATE TABLE webhook (
    id INTEGER PRIMARY KEY, url TEXT NOT NULL, secret TEXT NOT NULL, events TEXT NOT NULL, created REAL NOT NULL,
    told_labels INTEGER NOT NULL, told_iterations INTEGER NOT NULL, last_error TEXT NOT NULL DEFAULT ''
) STRICT;
"""
FOURTH = """
ALTER TABLE slate ADD COLUMN closed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX slate_open ON slate(closed, seq);
CREATE INDEX slate_open_size ON slate(closed, k);
CREATE TABLE revocation (
    seq INTEGER PRIMARY KEY, annotator TEXT NOT NULL REFERENCES annotator(id), reason TEXT NOT NULL,
    author TEXT NOT NULL, created REAL NOT NULL, lifted REAL
) STRICT;
CREATE VIEW revoked AS SELECT annotator, reason FROM revocation WHERE lifted IS NULL;
DROP VIEW standing;
CREATE VIEW standing AS
    SELECT label.* FROM label LEFT JOIN label AS later ON later.supersedes = label.client_key
    WHERE later.seq IS NULL AND label.outcome != 'undone' AND label.purpose != 'repeat'
    AND label.annotator NOT IN (SELECT annotator FROM revoked);
"""
FIFTH = """
ALTER TABLE judge_call RENAME TO judge_call_once;
CREATE TABLE judge_call (
    key TEXT NOT NULL, attempt INTEGER NOT NULL, annotator TEXT NOT NULL, slate_id TEXT NOT NULL,
    outcome TEXT NOT NULL, reply TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    cost REAL NOT NULL, seconds REAL NOT NULL, sent_as TEXT NOT NULL, created REAL NOT NULL, PRIMARY KEY (key, attempt)
) STRICT;
CREATE INDEX judge_call_slate ON judge_call(annotator, slate_id);
INSERT INTO judge_call
    SELECT key, 0, annotator, slate_id, CASE outcome WHEN 'ranked' THEN 'label' ELSE outcome END, reply,
           prompt_tokens, reply_tokens, 0, seconds, '', created FROM judge_call_once;
DROP TABLE judge_call_once;
CREATE TABLE judge_spending (
    annotator TEXT PRIMARY KEY, calls INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, cost REAL NOT NULL
) STRICT;
INSERT INTO judge_spending
    SELECT annotator, count(*), sum(prompt_tokens), sum(completion_tokens), 0 FROM judge_call GROUP BY annotator;
"""
SIXTH = """
DROP INDEX label_annotator;
CREATE INDEX label_annotator ON label(annotator, slate_id);
"""
SEVENTH = """
CREATE TABLE human_request (
    slate_id TEXT NOT NULL REFERENCES slate(id), judge TEXT NOT NULL REFERENCES annotator(id), reason TEXT NOT NULL,
    place REAL NOT NULL, propensity REAL, created REAL NOT NULL, PRIMARY KEY (slate_id, judge, reason)
) STRICT;
CREATE INDEX human_request_judge ON human_request(judge, reason);
ALTER TABLE slate ADD COLUMN place REAL;
CREATE INDEX slate_requested ON slate(closed, place) WHERE place IS NOT NULL;
"""
EIGHTH = """
CREATE INDEX lease_annotator ON lease(annotator, turn);
"""
NINTH = """
CREATE TABLE known_browser (
    token TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES account(name), created REAL NOT NULL
) STRICT;
"""
TENTH = """
ALTER TABLE slate ADD COLUMN taken_until REAL NOT NULL DEFAULT 0;
UPDATE slate SET closed = 0 WHERE closed = 1
    AND id IN (SELECT slate_id FROM standing WHERE outcome = 'skip')
    AND (SELECT count(*) FROM standing JOIN annotator ON annotator.id = standing.annotator
         WHERE slate_id = slate.id AND kind = 'human')
        < 2 + coalesce((SELECT CAST(value AS INTEGER) FROM setting WHERE key = 'overlap'), 1);
"""
ELEVENTH = """
ALTER TABLE invite ADD COLUMN name TEXT NOT NULL DEFAULT '';
"""
TWELFTH = """
DROP VIEW repeated;
CREATE VIEW repeated AS
    SELECT label.* FROM label LEFT JOIN label AS later ON later.supersedes = label.client_key
    WHERE later.seq IS NULL AND label.outcome != 'undone' AND label.purpose = 'repeat'
    AND label.annotator NOT IN (SELECT annotator FROM revoked);
"""


def first_shape(db: Database) -> None:
    """Prompts, slates, labels, leases, judge calls and run events."""
    _run_all(db, FIRST)


def clips(db: Database) -> None:
    """Candidates that are clips, the segments that they show, and whose turn it is among a person's leases."""
    _run_all(db, SECOND)


def people(db: Database) -> None:
    """Accounts, what labels say beyond an order, items with a known answer, settings and webhooks."""
    _run_all(db, THIRD)


def revocations(db: Database) -> None:
    """Annotators whose labels count for nothing, for as long as that is not lifted."""
    _run_all(db, FOURTH)


def judging(db: Database) -> None:
    """Each attempt of a judge's call is a row of its own, with its cost; what each judge has spent is kept beside."""
    _run_all(db, FIFTH)


def labels_by_slate(db: Database) -> None:
    """What an annotator says of a slate is found without looking at all that they said."""
    _run_all(db, SIXTH)


def human_requests(db: Database) -> None:
    """Slates that a judge answered and people are to answer too, why, and by which chance; they come first."""
    _run_all(db, SEVENTH)


def leases_by_person(db: Database) -> None:
    """What somebody holds is found without looking at what all others hold."""
    _run_all(db, EIGHTH)


def known_browsers(db: Database) -> None:
    """Browsers that signed in before, which wait for nobody else's wrong passwords."""
    _run_all(db, NINTH)


def taken_slates(db: Database) -> None:
    """Until when a slate has all people that it wants; and what one skip closed, as it once did, is open again."""
    _run_all(db, TENTH)


def invitations_for_names(db: Database) -> None:
    """Invitations that are good for one name alone, and for the labels that stand under it."""
    _run_all(db, ELEVENTH)


def revoked_repeats(db: Database) -> None:
    """Answers to planned repeats do not stand either when their annotator is revoked."""
    _run_all(db, TWELFTH)


def _run_all(db: Database, statements: str) -> None:
    for statement in statements.split(";\n"):
        if statement.strip():
            db.execute(statement)


STEPS = (
    first_shape,
    clips,
    people,
    revocations,
    judging,
    labels_by_slate,
    human_requests,
    leases_by_person,
    known_browsers,
    taken_slates,
    invitations_for_names,
    revoked_repeats,
)


def migrate(db: Database, path: str) -> None:
    """Bring the database at `path` to the newest shape.

    Two processes may come here at once: the version is read again under the write lock.
    Raises UserError when a newer Prefloop wrote the file.
    """

    def version() -> int:
        return int(db.execute("PRAGMA user_version").fetchone()[0])

    if version() > len(STEPS):
        raise UserError(
            f"{path} was written by a newer Prefloop (its version {version()}, known here: {len(STEPS)}): "
            "upgrade with `pip install --upgrade prefloop`"
        )
    while version() < len(STEPS):
        db.execute("BEGIN IMMEDIATE")
        try:
            current = version()
            if current < len(STEPS):
                STEPS[current](db)
                db.execute(f"PRAGMA user_version = {current + 1}")
            db.execute("COMMIT")
        except sqlite3.Error:
            db.execute("ROLLBACK")
            raise
