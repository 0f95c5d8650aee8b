"""Keep other libraries' chatter out of our own output."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Turn off progress bars and notes of transformers and the hub; ours stay."""
    import logging as standard
    import warnings

    # Before anything imports it, which is when it speaks of kernels that it can do without.
    standard.getLogger("bitsandbytes").setLevel(standard.ERROR)

    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    standard.getLogger("huggingface_hub").setLevel(standard.ERROR)  # retries while offline
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
