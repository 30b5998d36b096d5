"""What detect-secrets knows of secrets: its detectors of tokens that are known by their form, one pattern each.

Its detectors of entropy, which take every digest for a secret, and its scan line by line are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
from detect_secrets.plugins.basic_auth import BasicAuthDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.jwt import JwtTokenDetector
from detect_secrets.plugins.openai import OpenAIDetector
from detect_secrets.plugins.private_key import PrivateKeyDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector
from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector

from .secret_pattern import SecretPattern

AWS_ID, AWS_KEY, *_ = AWSKeyDetector.denylist

GITLAB = (
    "glpat-",
    "gldt-",
    "glft-",
    "glsoat-",
    "glrt-",
    "GR1348941",
    "glcbt-",
    "glimt-",
    "glptt-",
    "glagent-",
    "gloas-",
)
SLACK = ("xoxa-", "xoxb-", "xoxp-", "xoxo-", "xoxs-", "xoxr-", "https://hooks.slack.com/services/")


def _take(
    kind: str, anchors: tuple[str, ...], expressions: Iterable[re.Pattern[str]], **more: Any
) -> tuple[SecretPattern, ...]:
    """Return a detector's expressions as patterns that are tried where an anchor stands."""
    return tuple(SecretPattern(kind=kind, anchors=anchors, expression=expression, **more) for expression in expressions)


DETECTOR_PATTERNS = (
    *_take("AWS access key", ("AKIA", "ASIA", "ABIA", "ACCA", "A3T"), [AWS_ID]),
    *_take("AWS secret key", ("aws", "AWS", "Aws"), [AWS_KEY], group=1, is_word=False),
    *_take("Azure storage key", ("AccountKey=",), AzureStorageKeyDetector.denylist, n_shown=11),
    *_take("GitHub token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), GitHubTokenDetector.denylist),
    *_take("GitLab token", GITLAB, GitLabTokenDetector.denylist),
    *_take("JSON Web Token", ("eyJ",), JwtTokenDetector.denylist, is_valid=JwtTokenDetector.is_formally_valid),
    *_take("OpenAI key", ("sk-",), OpenAIDetector.denylist),
    *_take("password in a URL", ("://",), BasicAuthDetector.denylist, group=1, is_word=False, min_distinct=1),
    *_take(
        "private key",
        ("BEGIN", "PuTTY-User-Key-File-"),
        PrivateKeyDetector.denylist,
        n_shown=80,
        is_word=False,
        is_certain=True,
    ),
    *_take("PyPI token", ("pypi-AgE",), PypiTokenDetector.denylist),
    *_take("SendGrid key", ("SG.",), SendGridDetector.denylist),
    *_take("Slack token", SLACK, SlackDetector.denylist),
    *_take("Square secret", ("sq0csp-",), SquareOAuthDetector.denylist),
    *_take("Stripe key", ("rk_live_", "sk_live_"), StripeDetector.denylist),
    *_take("Telegram token", (":AA",), TelegramBotTokenDetector.denylist, n_before=10),
)
