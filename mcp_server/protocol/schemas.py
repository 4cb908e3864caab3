"""What a client sees published: descriptions and JSON Schemas of the tools, written out by hand.

Flat JSON Schema 2020-12: no $ref, no $defs, no recursion and no type unions (several clients drop such tools), and open output objects.
Optional arguments take null and "" as well, which `arguments` reads as absent. Every token here is paid for in every conversation, so each
sentence has to earn its place.
"""

from __future__ import annotations

from typing import Any

from mcp_server.protocol.arguments import MOST_HITS, MOST_VALUES, MOST_VIEWED

Schema = dict[str, Any]

INSTRUCTIONS = (
    "Finds pictures by what they show. clip_search ranks a collection by similarity to words or to pictures; pass its session back for the "
    "next ones without repeats. view_media shows you the hits. describe_filters lists fields and values to filter on: call it first. "
    "update_session keeps a shortlist. Scores rank within one query; rel says whether they mean anything."
)

CLIP_SEARCH = (
    "Find pictures that look like a description. Say what is visible, in plain English, with light and style "
    '("a red car parked outside a house, low light"), not concepts ("transportation").\n'
    "Hits come best first; rel is strong, fair or weak (weak: unrelated text scores as much here; stop there or at drop_after). "
    "Pass session back for the next ones; nothing is shown twice. Kept 24 hours after last use, 30 days with a shortlist."
)

DESCRIBE_FILTERS = (
    "List what clip_search can filter on: every field with its type, how many items have it (all, if not said), its commonest values, "
    "and an example filter. With field: its values with counts. With filters: counts among the items that pass. With text: counts among "
    "the 500 best unseen matches, to see how to narrow."
)

VIEW_MEDIA = (
    "Look at up to 12 pictures: one contact sheet, tiles numbered and labelled with their ids. Do this before you judge or describe them."
)

UPDATE_SESSION = (
    "Keep a shortlist in a session of clip_search, or exclude items from it for good. Returns shortlist, counts and notes; with session "
    "alone it just shows them. Export: resource clip://session/SESSION/kept.csv."
)

_FILTERS = (
    "Metadata condition, fields from describe_filters. "
    '{"color":"red"} | {"category":["food","drink"],"year":{"gte":2020,"lt":2024}} (AND across fields, OR in a list) | '
    '{"tags":{"all":["dog","beach"]},"source":{"not":"News"}} | {"title":{"contains":"bay"}} | {"date":{"exists":true}} | '
    '{"any":[{..},{..}],"not":{..}}'
)

_STRING: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_BOOLEAN: Schema = {"type": "boolean"}
_OBJECT: Schema = {"type": "object"}
_IDS: Schema = {"type": "array", "items": _INTEGER}
_COLLECTION: Schema = {**_STRING, "description": "Needed only if there are several"}

CLIP_SEARCH_INPUT: Schema = {
    "type": "object",
    "properties": {
        "text": {
            **_STRING,
            "description": 'What the picture shows, 1-1,000 characters; or a JSON list with weights: ["2: red car", "- night"]',
        },
        "like": {**_IDS, "description": "Media ids to look like, with or without text"},
        "unlike": {**_IDS, "description": "Media ids not to look like"},
        "collection": _COLLECTION,
        "n": {**_INTEGER, "minimum": 1, "maximum": MOST_HITS, "default": 10},
        "filters": {**_OBJECT, "description": _FILTERS},
        "session": {**_STRING, "description": "From an earlier answer, to go on; omit to start"},
        "repeats": {
            **_STRING,
            "enum": ["skip", "query", "allow"],
            "default": "skip",
            "description": "skip: nothing this session showed; query: only not what this same query showed; allow: all",
        },
        "seen": {**_IDS, "description": "More media ids to skip"},
        "excluded": {**_IDS, "description": "Media ids not wanted"},
        "excluded_groups": {**_IDS, "description": "Group ids whose members are not wanted"},
        "max_per_group": {**_INTEGER, "minimum": 1, "description": "1: one frame per video"},
        "min_score": {**_NUMBER, "minimum": -1, "maximum": 1},
        "page": {**_INTEGER, "minimum": 1, "description": "Number of an answer of this session, to get it again"},
        "detail": {**_STRING, "enum": ["ids", "concise", "full"], "default": "concise", "description": "full adds tags and links"},
    },
    "additionalProperties": False,
}

CLIP_SEARCH_OUTPUT: Schema = {
    "type": "object",
    "properties": {
        "session": _STRING,
        "page": _INTEGER,
        "returned": _INTEGER,
        "matching": _INTEGER,
        "unseen_left": _INTEGER,
        "short_reason": {**_STRING, "description": "Why fewer than n came"},
        "drop_after": {**_INTEGER, "description": "Scores fall most after this rank"},
        "hits": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"id": _INTEGER, "score": {**_NUMBER, "description": "cosine"}, "rel": _STRING, "title": _STRING},
            },
        },
        "hidden": _OBJECT,
        "warnings": {"type": "array"},
    },
    "required": ["session", "returned", "hits"],
}

DESCRIBE_FILTERS_INPUT: Schema = {
    "type": "object",
    "properties": {
        "collection": _COLLECTION,
        "field": {**_STRING, "description": "One field's values; omit for all fields"},
        "match": {**_STRING, "description": "Only values containing this"},
        "n": {**_INTEGER, "minimum": 1, "maximum": MOST_VALUES, "default": 20},
        "offset": {**_INTEGER, "minimum": 0, "default": 0},
        "filters": {**_OBJECT, "description": "As in clip_search"},
        "text": {**_STRING, "description": "As in clip_search"},
        "session": {**_STRING, "description": "With text: leave out what it showed"},
    },
    "additionalProperties": False,
}

DESCRIBE_FILTERS_OUTPUT: Schema = {
    "type": "object",
    "properties": {"items": _INTEGER, "fields": {"type": "array"}, "field": _OBJECT, "example": _OBJECT},
}

VIEW_MEDIA_INPUT: Schema = {
    "type": "object",
    "properties": {"collection": _COLLECTION, "ids": {**_IDS, "minItems": 1, "maxItems": MOST_VIEWED}},
    "required": ["ids"],
    "additionalProperties": False,
}

UPDATE_SESSION_INPUT: Schema = {
    "type": "object",
    "properties": {
        "session": {**_STRING, "description": "Omit to start one"},
        "collection": _COLLECTION,
        "keep": {**_IDS, "description": "Put on the shortlist"},
        "drop": {**_IDS, "description": "Neither keep nor exclude"},
        "exclude": {**_IDS, "description": "Never show again"},
        "forget_seen": {**_BOOLEAN, "description": "Let what was shown come again"},
        "note": {**_STRING, "description": "To remember, such as a decision"},
        "fork": {**_BOOLEAN, "description": "Change a copy, under a new session"},
    },
    "additionalProperties": False,
}

UPDATE_SESSION_OUTPUT: Schema = {
    "type": "object",
    "properties": {"session": _STRING, "kept": _OBJECT, "notes": {"type": "array"}},
    "required": ["session"],
}

INPUTS: dict[str, Schema] = {
    "clip_search": CLIP_SEARCH_INPUT,
    "describe_filters": DESCRIBE_FILTERS_INPUT,
    "view_media": VIEW_MEDIA_INPUT,
    "update_session": UPDATE_SESSION_INPUT,
}
"""What each tool takes, by its name."""
