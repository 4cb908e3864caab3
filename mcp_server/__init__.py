"""clip-search-mcp: an agent's words in, the pictures that look like them out.

A map of the house; imports point down only.

    cli, server, hosts   commands; the MCP server put together; entering it in the programs that use it
    protocol/            what a client sees: schemas, tools, resources, prompts, the gallery, errors as text, stdio and HTTP
    engine/              what happens: session -> skip set -> encode -> search -> ids -> relevance -> remember; curation, export, sheets
    encoders/            text or image -> unit vector (open_clip)
    indexes/             unit vector -> nearest rows (exact over Zarr embeddings, FAISS)
    stores/              SQLite catalog, filters, sessions; where pictures are read
    pictures/            bytes of a picture -> something to look at
    ingest/              a folder of pictures -> a collection
    side_files           arrays worked out once, kept in the cache and mapped into memory
    domain/, errors      frozen values; the error tree

One vocabulary: a *collection* holds *media*, each with a public *media id*; an indexed medium has a *row* in the embeddings; a *field* has
*values*; a *filter* is a condition on fields; a *group* is a medium other media belong to (the video of a keyframe); a *session* remembers
what was shown; the *skip set* is the rows a search must not return; a *score* is a cosine, higher is better.
"""

__version__ = "0.1.0"
