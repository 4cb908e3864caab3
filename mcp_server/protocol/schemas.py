"""What a client sees published: descriptions and JSON Schemas of the tools, written out by hand.

Flat JSON Schema 2020-12: no $ref, no $defs, no recursion and no type unions (several clients drop such tools), and open output objects.
Optional arguments take null and "" as well, which `arguments` reads as absent. Every token here is paid for in every conversation, so each
sentence has to earn its place.
"""

from __future__ import annotations

from typing import Any

from mcp_server.protocol.arguments import MOST_HITS, MOST_IDS, MOST_TEXT, MOST_VALUES

Schema = dict[str, Any]

INSTRUCTIONS = (
    "Finds pictures by what they show. clip_search ranks a collection by similarity to your words; pass the returned session back to get "
    "the next ones without repeats. Call describe_filters before using filters: it lists the fields and values. "
    "Scores rank within one query; they are not probabilities."
)

CLIP_SEARCH = (
    "Find pictures that look like a description. Say what is visible, in plain English, with light and style "
    '("a red car parked outside a house, low light"), not concepts ("transportation").\n'
    "The answer has hits (best first) and a session: pass it back for the next ones; nothing is shown twice. Kept 24 hours after last use. "
    "short_reason says why fewer than n came."
)

DESCRIBE_FILTERS = (
    "List what clip_search can filter on: every field with its type, how many items have it (all, if not said), its commonest values, "
    "and an example filter. With field: the values of that field with counts. With filters: counts among the items that pass."
)

_FILTERS = (
    "Metadata condition, fields from describe_filters. "
    '{"color":"red"} | {"category":["food","drink"],"year":{"gte":2020,"lt":2024}} (AND across fields, OR in a list) | '
    '{"tags":{"all":["dog","beach"]},"source":{"not":"News"}} | {"title":{"contains":"bay"}} | {"date":{"exists":true}} | '
    '{"any":[{..},{..}],"not":{..}}'
)

_OPTIONAL_TEXT: Schema = {"type": "string"}
_IDS: Schema = {"type": "array", "items": {"type": "integer"}, "maxItems": MOST_IDS}
_FILTERS_SCHEMA: Schema = {"type": "object", "description": _FILTERS}
_COLLECTION: Schema = {**_OPTIONAL_TEXT, "description": "Needed only if there are several"}

CLIP_SEARCH_INPUT: Schema = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "minLength": 1, "maxLength": MOST_TEXT, "description": "What the picture shows"},
        "collection": _COLLECTION,
        "n": {"type": "integer", "minimum": 1, "maximum": MOST_HITS, "default": 10},
        "filters": _FILTERS_SCHEMA,
        "session": {**_OPTIONAL_TEXT, "description": "From an earlier answer, to go on; omit to start"},
        "repeats": {
            "type": "string",
            "enum": ["skip", "query", "allow"],
            "default": "skip",
            "description": "skip: nothing this session showed; query: only not what this same text and filters showed; allow: all",
        },
        "seen": {**_IDS, "description": "More media ids to skip"},
        "excluded": {**_IDS, "description": "Media ids never wanted"},
        "excluded_groups": {**_IDS, "description": "Group ids whose members are not wanted"},
        "detail": {"type": "string", "enum": ["ids", "concise", "full"], "default": "concise", "description": "full adds tags and URLs"},
    },
    "required": ["text"],
    "additionalProperties": False,
}

CLIP_SEARCH_OUTPUT: Schema = {
    "type": "object",
    "properties": {
        "session": {"type": "string"},
        "collection": {"type": "string"},
        "returned": {"type": "integer"},
        "matching": {"type": "integer", "description": "Items passing the filters"},
        "unseen_left": {"type": "integer"},
        "exact": {"type": "boolean"},
        "approximation": {"type": "string"},
        "short_reason": {"type": "string"},
        "hits": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "integer"},
                    "score": {"type": "number", "description": "cosine"},
                    "title": {"type": "string"},
                    "uri": {"type": "string"},
                    "group": {"type": "integer"},
                },
            },
        },
        "hidden": {"type": "object", "description": "Counts left out as seen, excluded, filtered; best score among seen and excluded"},
        "filters": {"type": "string"},
        "warnings": {"type": "array", "items": {"type": "string"}},
        "next": {"type": "string"},
    },
    "required": ["session", "returned", "hits"],
}

DESCRIBE_FILTERS_INPUT: Schema = {
    "type": "object",
    "properties": {
        "collection": _COLLECTION,
        "field": {**_OPTIONAL_TEXT, "description": "One field's values; omit for all fields"},
        "match": {**_OPTIONAL_TEXT, "description": "Only values containing this"},
        "n": {"type": "integer", "minimum": 1, "maximum": MOST_VALUES, "default": 20},
        "offset": {"type": "integer", "minimum": 0, "default": 0},
        "filters": {"type": "object", "description": "Count only items that pass; as in clip_search"},
    },
    "additionalProperties": False,
}

DESCRIBE_FILTERS_OUTPUT: Schema = {
    "type": "object",
    "properties": {
        "collection": {"type": "string"},
        "collections": {"type": "object"},
        "items": {"type": "integer"},
        "matching": {"type": "integer"},
        "fields": {"type": "array", "items": {"type": "object"}},
        "field": {"type": "object"},
        "example": {"type": "object"},
        "next": {"type": "string"},
    },
}
