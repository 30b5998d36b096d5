"""Tokens that begin as no other text does, of providers that detect-secrets does not know or not all of."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

from .secret_pattern import SecretPattern, is_mixed


def _token(
    kind: str, anchors: tuple[str, ...] | str, expression: str, *, is_valid: Callable[[str], bool] | None = None
) -> SecretPattern:
    """Return the pattern of tokens that begin with an anchor and go on with the group of `expression`."""
    anchors = (anchors,) if isinstance(anchors, str) else anchors
    return SecretPattern(kind=kind, anchors=anchors, expression=re.compile(expression), group=1, is_valid=is_valid)


def _is_bot_token(token: str) -> bool:
    """Return whether a token begins with the number of a user of Discord, in base64."""
    number = token.partition(".")[0]
    try:
        return base64.urlsafe_b64decode(number + "=" * (-len(number) % 4)).isdigit()
    except binascii.Error:
        return False


BOT_ANCHORS = tuple(sorted({base64.b64encode(str(number).encode())[:3].decode() for number in range(100, 1000)}))
"""How the number of a user of Discord begins in base64."""

TOKEN_PATTERNS = (
    _token("Hugging Face token", "hf_", r"hf_([A-Za-z0-9]{30,200})(?![A-Za-z0-9_])"),
    _token("Hugging Face token", "hf_oauth_", r"hf_oauth_([A-Za-z0-9._-]{30,4000})", is_valid=is_mixed),
    _token("Hugging Face token", "api_org_", r"api_org_([A-Za-z0-9]{30,200})(?![A-Za-z0-9_])"),
    _token("Anthropic key", "sk-ant-", r"sk-ant-([A-Za-z0-9_-]{20,400})"),
    _token("OpenAI key", "sk-", r"sk-(?:proj|svcacct|admin|None|or-v1)-([A-Za-z0-9_-]{20,400})"),
    _token("OpenAI key", "sk-", r"sk-([A-Za-z0-9]{32,200})(?![A-Za-z0-9])"),
    _token("GitHub token", "github_pat_", r"github_pat_([A-Za-z0-9_]{22,255})"),
    _token("GitLab token", ("glrtr-", "glffct-", "glwt-"), r"gl(?:rtr|ffct|wt)-([A-Za-z0-9_-]{20,300})"),
    _token("Google API key", "AIza", r"AIza([0-9A-Za-z_-]{35})(?![0-9A-Za-z_-])"),
    _token("Google API key", "AQ.", r"AQ\.([0-9A-Za-z_-]{30,200})", is_valid=is_mixed),
    _token("Google secret", "GOCSPX-", r"GOCSPX-([0-9A-Za-z_-]{24,60})"),
    _token("Google token", "ya29.", r"ya29\.([0-9A-Za-z_-]{20,1000})"),
    _token("Google token", "1//0", r"1//0([0-9A-Za-z_-]{40,400})", is_valid=is_mixed),
    _token(
        "Slack token",
        ("xoxe.", "xoxe-", "xapp-", "xoxb-", "xoxp-", "xoxc-"),
        r"(?:xox[a-z][.-]|xapp-)([A-Za-z0-9.-]{20,400})",
    ),
    _token("Slack token", "xoxd-", r"xoxd-([A-Za-z0-9%/+=_-]{20,400})"),
    _token(
        "Slack address",
        "hooks.slack.com/",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9_/-]{20,400})",
    ),
    _token("Discord address", "discord", r"discord(?:app)?\.com/api/webhooks/\d{10,25}/([A-Za-z0-9_-]{50,100})"),
    _token(
        "Discord token",
        BOT_ANCHORS,
        r"([MNO][A-Za-z0-9_-]{22,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40})(?![A-Za-z0-9_.-])",
        is_valid=_is_bot_token,
    ),
    _token("Stripe key", ("sk_", "rk_"), r"[rs]k_(?:live|test)_([0-9a-zA-Z]{16,200})"),
    _token("Stripe secret", "whsec_", r"whsec_([0-9A-Za-z+/=]{24,200})"),
    _token("npm token", "npm_", r"npm_([A-Za-z0-9]{36})(?![A-Za-z0-9_])"),
    _token("Weights & Biases key", "wandb_v1_", r"wandb_v1_([A-Za-z0-9_]{20,200})"),
    _token("Replicate token", "r8_", r"r8_([A-Za-z0-9]{37})(?![A-Za-z0-9_])"),
    _token("Groq key", "gsk_", r"gsk_([A-Za-z0-9]{40,100})(?![A-Za-z0-9_])"),
    _token("xAI key", "xai-", r"xai-([A-Za-z0-9]{60,120})(?![A-Za-z0-9_-])"),
    _token("Perplexity key", "pplx-", r"pplx-([A-Za-z0-9]{40,100})(?![A-Za-z0-9_-])"),
    _token("NVIDIA key", "nvapi-", r"nvapi-([A-Za-z0-9_-]{50,100})"),
    _token("Databricks token", "dapi", r"dapi([0-9a-f]{32})(?![0-9A-Za-z_])"),
    _token("DigitalOcean token", ("dop_v1_", "doo_v1_", "dor_v1_"), r"do[opr]_v1_([0-9a-f]{64})(?![0-9A-Za-z_])"),
    _token("Docker token", ("dckr_pat_", "dckr_oat_"), r"dckr_[op]at_([A-Za-z0-9_-]{27,40})"),
    _token("Sentry token", "sntrys_", r"sntrys_([A-Za-z0-9+/=_]{40,400})"),
    _token("private key", "AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1([0-9A-Z]{50,70})"),
    SecretPattern(
        kind="Azure secret",
        anchors=("7Q~", "8Q~"),
        expression=re.compile(r"[A-Za-z0-9_~.-]{3}[78]Q~([A-Za-z0-9_~.-]{31,34})(?![A-Za-z0-9_~.-])"),
        n_before=3,
        group=1,
    ),
    SecretPattern(
        kind="private key",
        anchors=("BEGIN ENCRYPTED",),
        expression=re.compile("BEGIN ENCRYPTED PRIVATE[ ]KEY"),
        n_shown=80,
        is_word=False,
        is_certain=True,
    ),
)
