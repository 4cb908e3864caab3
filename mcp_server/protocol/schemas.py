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
    "next ones without repeats. view_media shows you the hits. describe_filters lists fields and values: call it before you filter. "
    "update_session keeps a shortlist. Scores rank within one query; rel says whether they mean anything."
)

CLIP_SEARCH = (
    "Find pictures by what they show: say what is visible, in plain English, with light and style "
    '("a red car outside a house, low light"), not concepts ("transportation"). Best hits first; rel is strong, fair or weak '
    "(unrelated words score as much here): stop there or at drop_after. For the next ones repeat the call with the session it returned: "
    "nothing comes twice. Kept 24 hours after last use, 30 days with a shortlist."
)

DESCRIBE_FILTERS = (
    "What clip_search can filter on: each field with its type, how many items have it (all, if not said), commonest values, and an example "
    "filter. With field: its values with counts. With filters: counts among the items that pass. With text: among the 500 best unseen "
    "matches, to see how to narrow."
)

VIEW_MEDIA = "See up to 12 pictures on one sheet, labelled with their ids. Do this before you judge or describe them."

UPDATE_SESSION = (
    "Keep a shortlist in a session of clip_search, or exclude items from it for good. Returns shortlist, counts and notes; session alone "
    "just shows them. Export: resource clip://session/SESSION/kept.csv."
)

_FILTERS = (
    "Fields from describe_filters. "
    '{"category":["food","drink"],"year":{"gte":2020,"lt":2024}} (fields are ANDed, a list ORed) | '
    '{"tags":{"all":["dog","sea"]},"source":{"not":"News"}} | {"title":{"contains":"bay"},"date":{"exists":true}} | '
    '{"any":[{..},{..}],"not":{..}}'
)

_STRING: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_BOOLEAN: Schema = {"type": "boolean"}
_OBJECT: Schema = {"type": "object"}
_ARRAY: Schema = {"type": "array"}
_IDS: Schema = {"type": "array", "items": _INTEGER}
_COLLECTION: Schema = {**_STRING, "description": "If there are several"}

CLIP_SEARCH_INPUT: Schema = {
    "type": "object",
    "properties": {
        "text": {**_STRING, "description": 'What it shows; or a JSON list with weights: ["2: red car", "- night"]'},
        "like": {**_IDS, "description": "Ids to look like, with or without text"},
        "unlike": _IDS,
        "collection": _COLLECTION,
        "n": {**_INTEGER, "maximum": MOST_HITS, "default": 10},
        "filters": {**_OBJECT, "description": _FILTERS},
        "session": {**_STRING, "description": "From an earlier answer, to go on"},
        "repeats": {
            **_STRING,
            "enum": ["skip", "query", "allow"],
            "default": "skip",
            "description": "skip what this session showed, only what this query showed, or nothing",
        },
        "seen": {**_IDS, "description": "More ids to skip"},
        "excluded": {**_IDS, "description": "Ids not wanted"},
        "excluded_groups": {**_IDS, "description": "Groups not wanted"},
        "max_per_group": {**_INTEGER, "description": "1: one frame per video"},
        "min_score": {**_NUMBER, "minimum": -1, "maximum": 1},
        "page": {**_INTEGER, "description": "An earlier answer of this session again"},
        "detail": {**_STRING, "enum": ["ids", "concise", "full"], "default": "concise", "description": "full: tags and links"},
    },
}

CLIP_SEARCH_OUTPUT: Schema = {
    "type": "object",
    "properties": {
        "session": _STRING,
        "returned": _INTEGER,
        "matching": _INTEGER,
        "unseen_left": _INTEGER,
        "hits": {
            "type": "array",
            "items": {"type": "object", "properties": {"id": _INTEGER, "score": _NUMBER, "rel": _STRING, "title": _STRING}},
        },
        "warnings": _ARRAY,
    },
    "required": ["session", "returned", "hits"],
}

DESCRIBE_FILTERS_INPUT: Schema = {
    "type": "object",
    "properties": {
        "collection": _COLLECTION,
        "field": {**_STRING, "description": "Omit for all fields"},
        "match": {**_STRING, "description": "Only values containing this"},
        "n": {**_INTEGER, "maximum": MOST_VALUES},
        "offset": _INTEGER,
        "filters": {**_OBJECT, "description": "As in clip_search"},
        "text": _STRING,
        "session": {**_STRING, "description": "With text: leave out what it showed"},
    },
}

VIEW_MEDIA_INPUT: Schema = {
    "type": "object",
    "properties": {"collection": _COLLECTION, "ids": {**_IDS, "maxItems": MOST_VIEWED}},
    "required": ["ids"],
}

UPDATE_SESSION_INPUT: Schema = {
    "type": "object",
    "properties": {
        "session": {**_STRING, "description": "Omit to start one"},
        "collection": _COLLECTION,
        "keep": _IDS,
        "drop": {**_IDS, "description": "Neither keep nor exclude"},
        "exclude": _IDS,
        "forget_seen": {**_BOOLEAN, "description": "Let what was shown come again"},
        "note": {**_STRING, "description": "To remember"},
        "fork": {**_BOOLEAN, "description": "Change a copy"},
    },
}

INPUTS: dict[str, Schema] = {
    "clip_search": CLIP_SEARCH_INPUT,
    "describe_filters": DESCRIBE_FILTERS_INPUT,
    "view_media": VIEW_MEDIA_INPUT,
    "update_session": UPDATE_SESSION_INPUT,
}
"""What each tool takes, by its name."""
