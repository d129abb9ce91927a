"""Studies: a whole table of results from one definition, as a graph of tfcxr commands."""
