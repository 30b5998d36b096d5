"""What secrets look like that detect-secrets does not know."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretPattern:
    """A kind of secrets.

    Attributes
    ----------
    kind
        What is told of a finding.
    anchors
        Texts of which every secret of the kind holds one, which are quickly searched for.
    expression
        The whole secret, from its anchor on, or from at most ``n_before`` characters before it.
    group
        The group of the expression that is secret; 0 for all of it, of which ``n_shown`` characters may be shown.
    is_word
        Whether nothing of a word may stand before it.
    is_certain
        Whether every match is a secret; else it must not be a placeholder (what has fewer than ``min_distinct``
        different characters, such as ``xxxxxxxx``, is one, too), and be what ``is_valid`` says.
    """

    kind: str
    anchors: tuple[str, ...]
    expression: re.Pattern[str]
    n_before: int = 0
    group: int = 0
    n_shown: int = 3
    is_word: bool = True
    is_certain: bool = False
    min_distinct: int = 6
    is_valid: Callable[[str], bool] | None = None


def _token(kind: str, anchors: tuple[str, ...] | str, expression: str) -> SecretPattern:
    """Return the pattern of tokens that begin with an anchor and go on with the group of `expression`."""
    anchors = (anchors,) if isinstance(anchors, str) else anchors
    return SecretPattern(kind=kind, anchors=anchors, expression=re.compile(expression), group=1)


def _named(kind: str, anchors: tuple[str, ...], expression: str) -> SecretPattern:
    """Return the pattern of what stands beside a name that says that it is secret."""
    return SecretPattern(kind=kind, anchors=anchors, expression=re.compile(expression), group=1, is_word=False)


def _is_mixed(secret: str) -> bool:
    """Return whether a value has letters and digits, as generated ones have; a name or a path seldom does."""
    return any(sign.isdigit() for sign in secret) and any(sign.isalpha() for sign in secret)


BETWEEN = r"""(?:\\?["'])?\s{0,4}(?:=>|:=|[:=])?\s{0,4}(?:\\?["'])?"""
"""What may stand between a name and its value in code, JSON, YAML and shells, quotes that are escaped included."""

ASSIGNED = r"""(?:\\?["'])?\s{0,4}(?:=>|:=|[:=])\s{0,4}(?:\\?["'])?"""

QUERY = (
    "X-Amz-Signature|X-Amz-Security-Token|X-Goog-Signature|Signature|signature|sig|"
    "access_token|auth_token|token|api_key|apikey|key"
)
"""Parameters of URLs that open what they name to whoever has them."""

OWN_PATTERNS = (
    _token("Hugging Face token", "hf_", r"hf_([A-Za-z0-9]{30,200})(?![A-Za-z0-9_])"),
    _token("Hugging Face token", "api_org_", r"api_org_([A-Za-z0-9]{30,200})(?![A-Za-z0-9_])"),
    _token("Anthropic key", "sk-ant-", r"sk-ant-([A-Za-z0-9_-]{20,400})"),
    _token("OpenAI key", "sk-", r"sk-(?:proj|svcacct|admin|or-v1)-([A-Za-z0-9_-]{20,400})"),
    _token("OpenAI key", "sk-", r"sk-([A-Za-z0-9]{32,200})(?![A-Za-z0-9])"),
    _token("GitHub token", "github_pat_", r"github_pat_([A-Za-z0-9_]{22,255})"),
    _token("Google API key", "AIza", r"AIza([0-9A-Za-z_-]{35})(?![0-9A-Za-z_-])"),
    _token("Google secret", "GOCSPX-", r"GOCSPX-([0-9A-Za-z_-]{24,60})"),
    _token("Google token", "ya29.", r"ya29\.([0-9A-Za-z_-]{20,1000})"),
    _token(
        "Slack token", ("xoxe.", "xoxe-", "xapp-", "xoxb-", "xoxp-"), r"(?:xox[a-z][.-]|xapp-)([A-Za-z0-9.-]{20,400})"
    ),
    _token("Stripe key", ("sk_", "rk_"), r"[rs]k_(?:live|test)_([0-9a-zA-Z]{16,200})"),
    _token("Stripe secret", "whsec_", r"whsec_([0-9A-Za-z+/=]{24,200})"),
    _token("npm token", "npm_", r"npm_([A-Za-z0-9]{36})(?![A-Za-z0-9_])"),
    _named("npm token", (":_authToken=",), r""":_authToken=\s{0,4}["']?([A-Za-z0-9_-]{20,200})"""),
    _token("Weights & Biases key", "wandb_v1_", r"wandb_v1_([A-Za-z0-9_]{20,200})"),
    _token("Replicate token", "r8_", r"r8_([A-Za-z0-9]{37})(?![A-Za-z0-9_])"),
    _named(
        "AWS secret key",
        ("secret", "Secret", "SECRET"),
        rf"(?i:secret_?(?:access_?)?key){BETWEEN}([A-Za-z0-9/+]{{40}})(?![A-Za-z0-9/+=])",
    ),
    _named(
        "Weights & Biases key",
        ("wandb", "WANDB", "Wandb"),
        rf"(?i:wandb).{{0,20}}?(?i:key|token|login|password){BETWEEN}\s?([0-9a-f]{{40}})(?![0-9A-Za-z])",
    ),
    _named("password in a URL", ("://",), r"""://[^\s/@:"'<>\\`]{0,200}:([^\s/@"'<>\\`]{1,200})@[A-Za-z0-9\[]"""),
    SecretPattern(
        kind="signed URL",
        anchors=("ignature=", "sig=", "token=", "Token=", "key="),
        expression=re.compile(rf"(?:[?&;]|u0026)(?:{QUERY})=([A-Za-z0-9%._~+/=-]{{16,4000}})"),
        n_before=24,
        group=1,
        is_valid=_is_mixed,
    ),
    SecretPattern(
        kind="private key",
        anchors=("BEGIN ENCRYPTED",),
        expression=re.compile("BEGIN ENCRYPTED PRIVATE[ ]KEY"),
        n_shown=80,
        is_word=False,
        is_certain=True,
    ),
    _named("shared key", ("SharedAccess",), r"SharedAccess(?:Key|Signature)=([A-Za-z0-9+/=%&._-]{32,400})"),
    _named("bearer token", ("earer ",), r"earer ([A-Za-z0-9._~+/-]{20,4000}={0,2})"),
    SecretPattern(
        kind="named secret",
        anchors=("TOKEN", "SECRET", "PASSWORD", "PASSWD", "API_KEY", "ACCESS_KEY"),
        expression=re.compile(
            rf"(?:TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY){ASSIGNED}([A-Za-z0-9._~+/-]{{16,400}}=*)"
        ),
        group=1,
        is_word=False,
        is_valid=_is_mixed,
    ),
    SecretPattern(
        kind="named secret",
        anchors=(
            "password",
            "passwd",
            "api_key",
            "apikey",
            "secret_key",
            "access_token",
            "auth_token",
            "client_secret",
        ),
        expression=re.compile(
            r"(?:password|passwd|api_?key|secret_key|access_token|auth_token|client_secret)"
            rf"{ASSIGNED}([A-Za-z0-9._~+/!@#%^&*-]{{8,400}}=*)"
        ),
        group=1,
        is_word=False,
        is_valid=_is_mixed,
    ),
)
"""Tokens that begin as no other text does, and values whose name says that they are secret."""
