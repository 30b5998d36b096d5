"""Values that are secret because of what stands before them: a name that says so, a header, or an address."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from .secret_pattern import SecretPattern, is_mixed

QUOTE = r"""(?:\\?["'])?"""
"""Of a name or a value in code, JSON and shells, one that is escaped included."""

BETWEEN = rf"{QUOTE}\s{{0,4}}(?:=>|:=|[:=])?\s{{0,4}}{QUOTE}"
"""What may stand between a name and its value in code, JSON, YAML and shells."""

ASSIGNED = rf"{QUOTE}\s{{0,4}}(?:=>|:=|[:=])\s{{0,4}}"

GIVEN = (
    rf"{QUOTE}(?:\s{{0,4}}=\s{{0,4}}|\s{{0,40}},\s{{0,40}}(?=\\?[\"'])|\s{{1,40}}(?:-\s{{1,4}})?)"
    rf"(?!{QUOTE}--)"
)
"""What may stand between an option of a command and its value in shells, and in JSON and YAML lists of both."""

OPTION = re.compile(r"--[\w-]*\Z")
"""An option of a command as far as the name that says that it is secret."""

QUERY = (
    "X-Amz-Signature|X-Amz-Security-Token|X-Goog-Signature|Signature|signature|sig|"
    "access_token|auth_token|token|api_key|apikey|key"
)
"""Parameters of URLs that open what they name to whoever has them."""


def _named(
    kind: str, anchors: tuple[str, ...] | str, expression: str, *, is_valid: Callable[[str], bool] | None = None
) -> SecretPattern:
    """Return the pattern of what stands beside a name that says that it is secret."""
    return SecretPattern(
        kind=kind,
        anchors=(anchors,) if isinstance(anchors, str) else anchors,
        expression=re.compile(expression),
        group=1,
        is_word=False,
        is_valid=is_valid,
    )


def _value(n_least: int) -> str:
    """Return the expression of a value: its quote, if it has one, is the first group, it is the second.

    Without quotes, what is called or looked up in code, such as ``get_token()``, is none.
    """
    return (
        r"""(\\?["'])?(?(1)|(?![A-Za-z_][\w.]*[(\[]))"""
        rf"""((?(1)[^\s"'\\]|[^\s"'`\\,;<>(){{}}\[\]]){{{n_least},400}})"""
    )


def _assigned(
    names: str, anchors: tuple[str, ...], *, n_least: int, is_valid: Callable[[str], bool] = is_mixed
) -> tuple[SecretPattern, SecretPattern]:
    """Return the patterns of values of at least `n_least` letters that are assigned to names, or given as options.

    The names may be written in any case, and be the end of longer ones. The anchors are given in small letters.
    """
    spelled = tuple(one for anchor in anchors for one in (anchor, anchor.title(), anchor.upper()))
    assigned = re.compile(rf"(?:{names}){ASSIGNED}{_value(n_least)}", re.IGNORECASE)
    given = re.compile(rf"(?:{names}){GIVEN}{_value(n_least)}", re.IGNORECASE)
    about: dict[str, Any] = {
        "kind": "named secret",
        "anchors": spelled,
        "group": 2,
        "is_word": False,
        "is_valid": is_valid,
    }
    return SecretPattern(expression=assigned, **about), SecretPattern(expression=given, before=OPTION, **about)


def _is_password(secret: str) -> bool:
    """Return whether a value has letters, and digits or signs; one of letters and hyphens alone must be long."""
    if re.fullmatch(r"[^\W\d_]+(?:-[^\W\d_]+)*", secret):
        return len(secret) >= 12
    return any(sign.isalpha() for sign in secret) and bool(re.search(r"[\d!@#$%^&*?+=~]", secret))


def _is_basic(secret: str) -> bool:
    """Return whether a value is a user and a password in base64."""
    try:
        return b":" in base64.b64decode(secret + "=" * (-len(secret) % 4))
    except binascii.Error:
        return False


NAME_PATTERNS = (
    *_assigned("password|passwd|passphrase", ("password", "passwd", "passphrase"), n_least=6, is_valid=_is_password),
    *_assigned(
        "(?:api|access|secret)[-_ ]?key|(?:access|auth|refresh|session)[-_ ]?token|client[-_ ]?secret",
        ("api", "access", "secret", "auth", "refresh", "session", "client"),
        n_least=8,
    ),
    *_assigned("(?-i:TOKEN|SECRET)", ("token", "secret"), n_least=8),
    *_assigned("token|secret", ("token", "secret"), n_least=16),
    _named(
        "AWS secret key",
        ("secret", "Secret", "SECRET"),
        rf"(?i:secret_?(?:access_?)?key){BETWEEN}([A-Za-z0-9/+]{{40}})(?![A-Za-z0-9/+=])",
    ),
    _named(
        "Azure storage key",
        ("key", "Key", "KEY", "credential", "Credential", "CREDENTIAL"),
        rf"(?i:key|credential){ASSIGNED}{QUOTE}([A-Za-z0-9/+]{{86}}==)",
    ),
    _named(
        "Weights & Biases key",
        ("wandb", "WANDB", "Wandb"),
        rf"(?i:wandb).{{0,20}}?(?i:key|token|login|password){BETWEEN}\s?([0-9a-f]{{40}})(?![0-9A-Za-z])",
    ),
    _named("npm token", ":_authToken=", r""":_authToken=\s{0,4}["']?([A-Za-z0-9_-]{20,200})"""),
    _named("shared key", "SharedAccess", r"SharedAccess(?:Key|Signature)=([A-Za-z0-9+/=%&._-]{32,400})"),
    _named("bearer token", ("earer ", "EARER "), r"(?i:earer) ([A-Za-z0-9._~+/-]{20,4000}={0,2})"),
    _named(
        "password in a header",
        ("uthorization", "UTHORIZATION"),
        rf"(?i:uthorization{ASSIGNED}{QUOTE}basic)\s{{1,4}}([A-Za-z0-9+/=_-]{{8,4000}})",
        is_valid=_is_basic,
    ),
    _named(
        "token in a header",
        ("uthorization", "UTHORIZATION"),
        rf"(?i:uthorization{ASSIGNED}{QUOTE}(?:token|api-?key))\s{{1,4}}([A-Za-z0-9._~+/=-]{{16,4000}})",
        is_valid=is_mixed,
    ),
    _named("password in a URL", "://", r"""://[^\s/@:"'<>\\`]{0,200}:([^\s/@"'<>\\`]{1,200})@[A-Za-z0-9\[]"""),
    _named("token in a URL", "://", r"://([A-Za-z0-9_~-]{20,400}):?@[A-Za-z0-9\[]", is_valid=is_mixed),
    SecretPattern(
        kind="signed URL",
        anchors=("ignature=", "sig=", "token=", "Token=", "key="),
        expression=re.compile(rf"(?:[?&;]|u0026)(?:{QUERY})=([A-Za-z0-9%._~+/=-]{{16,4000}})"),
        n_before=24,
        group=1,
        is_valid=is_mixed,
    ),
    SecretPattern(
        kind="signed URL",
        anchors=("sig=",),
        expression=re.compile(r"sig=((?:[A-Za-z0-9/+]|%2[BbFf]){43}(?:=|%3[Dd]))"),
        group=1,
    ),
)
