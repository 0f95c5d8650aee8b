"""Run by NNI's Python: checks a configuration and prints it in the form that its manager takes."""

from __future__ import annotations

import json
import sys
import warnings


def main() -> int:
    """Read the configuration as JSON from standard input; print it, or `{"error": ...}`."""
    warnings.simplefilter("ignore")
    config = json.load(sys.stdin)
    from nni.experiment.config import ExperimentConfig

    try:
        made = ExperimentConfig(**config).canonical_copy()
    except Exception as error:  # NNI raises anything from AssertionError to AttributeError
        print(json.dumps({"error": " ".join(str(error).split()) or type(error).__name__}))
        return 0
    print(json.dumps({"config": made.json()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
