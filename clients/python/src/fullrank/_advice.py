"""What to do about each kind of problem, in a sentence or two.

Must not: log, or know how a problem is detected.
"""

from __future__ import annotations

_ADVICE = {
    "unreachable": "the service does not answer ({}). Start it with `fullrank serve`, or set its address with url= or"
    " FULLRANK_URL. Batches are retried; beyond queue_bytes the oldest are dropped. Training continues",
    "not_fullrank": "the server at this address is not the fullrank service ({}). Check the address."
    " Batches are retried",
    "unavailable": "the service is unavailable ({}). Batches are retried",
    "unauthenticated": "the service requires its token ({}). Set token= or FULLRANK_TOKEN to the content of the"
    " service's --token-file. Until then it accepts nothing",
    "forbidden": "the service does not accept this host name ({}). Start it with --allowed-host, or use its IP address",
    "version": "the service has a different major version ({}). Install the matching client",
    "overloaded": "the service is overloaded ({}). Batches are retried; to push fewer rows, set max_rows= or every=",
    "too_many_streams": "the service watches too many layers ({}). Finish or delete runs",
    "draining": "the service is shutting down ({}). Batches are retried when it is back",
    "storage_full": "the service cannot write its history ({}). Free space on its disk. Batches are retried",
    "not_finite": "a batch was refused ({}). The embeddings contain NaN or infinity: the training has diverged, or a"
    " mixed-precision scale has overflowed",
    "unknown_parameter": "a parameter was refused ({}). The batch is sent without it",
    "malformed": "a batch was refused ({})",
    "wrong_length": "a batch was refused ({})",
    "unsupported_type": "a batch was refused ({})",
    "dimension_mismatch": "a batch was refused ({}). Push it under another layer name",
    "window_closed": "a batch was refused ({}). Push all rows of a window before its last=True or close()",
    "too_large": "a batch was refused ({}). Push fewer rows: set max_rows=",
    "cut": "a batch exceeded the service's limit and was cut to a random subset: {}. Set max_rows= to choose its size",
    "timeout": "the service gave up on a slow request body ({}). Batches are retried",
}


def advice(kind: str, detail: str, where: str) -> str:
    """The message for `kind`: the address, the detail, and the remedy."""
    return f"{where}: " + _ADVICE.get(kind, kind + " ({})").replace("{}", detail)
