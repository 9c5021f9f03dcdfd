"""What to do about each kind of trouble, in a sentence.

Must not: log, or know how a trouble is found.
"""

from __future__ import annotations

_ADVICE = {
    "unreachable": "the service does not answer ({}). Start it with `fullrank serve`, or set the address by the url"
    " argument or FULLRANK_URL. Batches are tried again; over queue_bytes the oldest are dropped. Training goes on",
    "not_fullrank": "what answers is not the fullrank service ({}). Check the address. Batches are tried again",
    "unavailable": "the service is not available ({}). Batches are tried again",
    "unauthenticated": "the service wants its token ({}). Give token= or set FULLRANK_TOKEN to the content of the"
    " service's --token-file. Nothing is taken until then",
    "forbidden": "the service does not take this host name ({}). Start it with --allowed-host, or use its address",
    "version": "the service is of another major version ({}). Install the client that belongs to it",
    "overloaded": "the service has no room at present ({}). Batches are tried again;"
    " push fewer rows (max_rows=, every=)",
    "too_many_streams": "the service watches too many layers ({}). Finish or delete runs",
    "draining": "the service is stopping ({}). Batches are tried again once it is back",
    "storage_full": "the service cannot write its history ({}). Free space on its disk; batches are tried again",
    "not_finite": "a batch was refused ({}). The embeddings hold NaN or infinity: the training has diverged, or a mixed"
    " precision scale has overflowed",
    "unknown_parameter": "a parameter was refused ({}). The batch is sent without it",
    "malformed": "a batch was refused ({})",
    "wrong_length": "a batch was refused ({})",
    "unsupported_type": "a batch was refused ({})",
    "dimension_mismatch": "a batch was refused ({}). Push it under another layer name",
    "window_closed": "a batch was refused ({}). Push a window's rows before its last=True or close()",
    "too_large": "a batch was refused ({}). Push fewer rows: max_rows=",
    "cut": "a batch was over the service's limit and was cut at random: {}. Set max_rows= to choose it yourself",
    "timeout": "the service gave up on a slow body ({}). Batches are tried again",
}


def advice(kind: str, detail: str, where: str) -> str:
    """The sentence for `kind`, with what happened and at which address."""
    return f"{where}: " + _ADVICE.get(kind, kind + " ({})").replace("{}", detail)
