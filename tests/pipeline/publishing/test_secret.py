"""Secrets are found wherever they stand, are never shown, and nothing else is taken for one.

All are made here at random, piece by piece: no text of this file looks like one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import string
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.publishing.secret import find_secrets
from storage import open_dataset

SEEDS = st.integers(0, 2**32)
"""Of random letters, which hypothesis would else make as dull as it can: then they are no secrets any more."""

LETTERS = string.ascii_letters + string.digits
UPPER = string.ascii_uppercase + string.digits


def draw(random: Random, n: int, alphabet: str = LETTERS) -> str:
    return "".join(random.choice(alphabet) for _ in range(n))


HEX = "0123456789abcdef"


def make_bot_token(random: Random) -> str:
    number = base64.b64encode(draw(random, 18, string.digits[1:]).encode()).decode()
    return ".".join([number, draw(random, 6), draw(random, 38)])


def make_jwt(random: Random) -> str:
    parts = [json.dumps({"alg": "HS256", "n": draw(random, 6)}), json.dumps({"sub": draw(random, 12)})]
    encoded = [base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, draw(random, 43)])


TOKENS: dict[str, tuple[str, Callable[[Random], str]]] = {
    "hf": ("Hugging Face token", lambda r: "h" + "f_" + draw(r, 34)),
    "hf-org": ("Hugging Face token", lambda r: "api" + "_org_" + draw(r, 34)),
    "openai": ("OpenAI key", lambda r: "s" + "k-" + draw(r, 20) + "T3Blbk" + "FJ" + draw(r, 20)),
    "openai-project": ("OpenAI key", lambda r: "s" + "k-proj-" + draw(r, 48)),
    "openai-plain": ("OpenAI key", lambda r: "s" + "k-" + draw(r, 48)),
    "anthropic": ("Anthropic key", lambda r: "s" + "k-ant-api03-" + draw(r, 80, LETTERS + "_-")),
    "aws-id": ("AWS access key", lambda r: "AK" + "IA" + draw(r, 16, UPPER)),
    "github": ("GitHub token", lambda r: "gh" + "p_" + draw(r, 36)),
    "github-fine": ("GitHub token", lambda r: "github" + "_pat_" + draw(r, 22) + "_" + draw(r, 59)),
    "gitlab": ("GitLab token", lambda r: "glp" + "at-" + draw(r, 20)),
    "google": ("Google API key", lambda r: "AI" + "za" + draw(r, 35)),
    "slack": ("Slack token", lambda r: "xo" + "xb-" + draw(r, 12, string.digits) + "-" + draw(r, 24, LETTERS.lower())),
    "stripe": ("Stripe key", lambda r: "sk" + "_live_" + draw(r, 24)),
    "npm": ("npm token", lambda r: "np" + "m_" + draw(r, 36)),
    "pypi": ("PyPI token", lambda r: "pypi-" + "AgEIcHlwaS5vcmc" + draw(r, 90)),
    "sendgrid": ("SendGrid key", lambda r: "S" + "G." + draw(r, 22) + "." + draw(r, 43)),
    "telegram": ("Telegram token", lambda r: draw(r, 9, string.digits) + ":" + "AA" + draw(r, 33)),
    "jwt": ("JSON Web Token", make_jwt),
    "hf-oauth": ("Hugging Face token", lambda r: "h" + "f_oauth_" + make_jwt(r)),
    "openai-none": ("OpenAI key", lambda r: "s" + "k-None-" + draw(r, 48)),
    "gitlab-trigger": ("GitLab token", lambda r: "glr" + "tr-" + draw(r, 20)),
    "gitlab-feature": ("GitLab token", lambda r: "glf" + "fct-" + draw(r, 20)),
    "google-new": ("Google API key", lambda r: "A" + "Q.Ab8RN6" + draw(r, 43) + "7"),
    "google-refresh": ("Google token", lambda r: "1/" + "/0g" + draw(r, 90) + "7"),
    "slack-client": ("Slack token", lambda r: "xo" + "xc-" + draw(r, 12, string.digits) + "-" + draw(r, 24)),
    "slack-cookie": ("Slack token", lambda r: "xo" + "xd-" + draw(r, 30) + "%2B" + draw(r, 30)),
    "discord": ("Discord token", make_bot_token),
    "groq": ("Groq key", lambda r: "gs" + "k_" + draw(r, 52)),
    "xai": ("xAI key", lambda r: "xa" + "i-" + draw(r, 80)),
    "perplexity": ("Perplexity key", lambda r: "ppl" + "x-" + draw(r, 48)),
    "nvidia": ("NVIDIA key", lambda r: "nv" + "api-" + draw(r, 64, LETTERS + "_-")),
    "databricks": ("Databricks token", lambda r: "da" + "pi" + draw(r, 32, HEX)),
    "digitalocean": ("DigitalOcean token", lambda r: "do" + "p_v1_" + draw(r, 64, HEX)),
    "docker": ("Docker token", lambda r: "dckr" + "_pat_" + draw(r, 27)),
    "sentry": ("Sentry token", lambda r: "snt" + "rys_" + draw(r, 60)),
    "azure-secret": ("Azure secret", lambda r: draw(r, 3) + "8" + "Q~" + draw(r, 34)),
    "wandb-new": ("Weights & Biases key", lambda r: "wandb" + "_v1_" + draw(r, 40)),
}
"""Tokens that are known by their form: kind, and how one is made."""

NAMED: dict[str, tuple[str, Callable[[Random], tuple[str, str]]]] = {
    "aws-key": ("AWS secret key", lambda r: ("aws_" + "secret_access_key = ", draw(r, 40, LETTERS + "/+"))),
    "aws-json": ("AWS secret key", lambda r: ('{"Secret' + 'AccessKey": "', draw(r, 40, LETTERS + "/+"))),
    "aws-escaped": ("AWS secret key", lambda r: ('{\\"AWS_SECRET' + '_ACCESS_KEY\\": \\"', draw(r, 40))),
    "azure": ("Azure storage key", lambda r: ("DefaultEndpoints;Account" + "Key=", draw(r, 86) + "==")),
    "wandb": ("Weights & Biases key", lambda r: ("WANDB" + "_API_KEY=", draw(r, 40, "0123456789abcdef"))),
    "npm": ("npm token", lambda r: ("//registry.example.org/:_auth" + "Token=", draw(r, 36, "0123456789abcdef-"))),
    "basic": ("password in a URL", lambda r: ("https://ada:", draw(r, 12) + "$!")),
    "redis": ("password in a URL", lambda r: ("redis://:", draw(r, 12))),
    "presigned": (
        "signed URL",
        lambda r: ("https://b.s3/x?a=1&X-Amz-Sig" + "nature=", draw(r, 64, "0123456789abcdef")),
    ),
    "sas": ("signed URL", lambda r: ("https://a/b?sv=2022&s" + "ig=", draw(r, 43) + "%3D")),
    "escaped": ("signed URL", lambda r: ("https://a/b?sv=1\\u0026to" + "ken=", draw(r, 40) + "9a")),
    "bearer": ("bearer token", lambda r: ("Authorization: Bea" + "rer ", draw(r, 40))),
    "environment": ("named secret", lambda r: ("MY_SERVICE_TO" + "KEN=", draw(r, 30) + "9a")),
    "yaml": ("named secret", lambda r: ("pass" + "word: ", draw(r, 6) + "9a" + draw(r, 6))),
    "slack": ("Slack address", lambda r: ("hooks.slack" + ".com/workflows/", draw(r, 9, UPPER) + "/" + draw(r, 24))),
    "discord": ("Discord address", lambda r: ("discord" + f".com/api/webhooks/{r.randrange(10**17)}9/", draw(r, 68))),
    "age": ("private key", lambda r: ("AGE-SEC" + "RET-KEY-1", draw(r, 58, UPPER))),
    "azure-key": ("Azure storage key", lambda r: ("AZURE_STORAGE_K" + "EY=", draw(r, 86) + "==")),
    "azure-account": ("Azure storage key", lambda r: ("AZURE_STORAGE_ACCOUNT_K" + "EY=", draw(r, 86) + "==")),
    "azure-json": ("Azure storage key", lambda r: ('{"account_k' + 'ey": "', draw(r, 86, LETTERS + "+/") + "==")),
    "sas-escaped": ("signed URL", lambda r: ("https://a/b?sv=2022&s" + "ig=", "%2B" + draw(r, 42) + "%3D")),
    "sas-first": ("signed URL", lambda r: ("https://a/b?s" + "ig=", "%2B" + draw(r, 42) + "%3D&se=2025")),
    "sas-bare": ("signed URL", lambda r: ("s" + "ig=", draw(r, 43) + "%3D&se=2025")),
    "basic-escaped": ("password in a URL", lambda r: ("https://ada:", "%40" + draw(r, 12))),
    "basic-variable": ("password in a URL", lambda r: ("https://ada:", "$" + draw(r, 4) + "aB" + draw(r, 6))),
    "url-user": ("token in a URL", lambda r: ("https://", draw(r, 38) + "9a")),
    "header-basic": (
        "password in a header",
        lambda r: ("Authorization: Ba" + "sic ", base64.b64encode(f"ada:{draw(r, 12)}".encode()).decode()),
    ),
    "header-token": ("token in a header", lambda r: ('{"authorization": "to' + "ken ", draw(r, 38, HEX) + "9a")),
    "header-key": ("named secret", lambda r: ("X-API-K" + "ey: ", draw(r, 30) + "9a")),
    "bearer-upper": ("bearer token", lambda r: ("BEA" + "RER ", draw(r, 40))),
    "session": ("named secret", lambda r: ('{"Session' + 'Token": "', draw(r, 300, LETTERS + "+/") + "9a==")),
    "session-yaml": ("named secret", lambda r: ("aws_session_to" + "ken: ", draw(r, 300, LETTERS + "+/") + "9a==")),
    "camel": ("named secret", lambda r: ('{"api' + 'Key": "', draw(r, 30) + "9a")),
    "hyphen": ("named secret", lambda r: ("api-" + "key: ", draw(r, 30) + "9a")),
    "camel-token": ("named secret", lambda r: ('{"access' + 'Token": "', draw(r, 30) + "9a")),
    "token": ("named secret", lambda r: ('{"to' + 'ken": "', draw(r, 30) + "9a")),
    "secret": ("named secret", lambda r: ('{"sec' + 'ret": "', draw(r, 30) + "9a")),
    "hf-token": ("named secret", lambda r: ('{"hf_to' + 'ken": "', draw(r, 30) + "9a")),
    "client": ("named secret", lambda r: ('{\\"client' + 'Secret\\": \\"', draw(r, 30) + "9a")),
    "upper-short": ("named secret", lambda r: ("MY_SERVICE_TO" + "KEN=", draw(r, 8) + "9a")),
    "camel-password": ("named secret", lambda r: ('{"dbPass' + 'word": "', draw(r, 9) + "9a")),
    "title-password": ("named secret", lambda r: ('{"Pass' + 'word": "', draw(r, 9) + "9a")),
    "passphrase": ("named secret", lambda r: ("PASS" + "PHRASE=", draw(r, 9) + "9a")),
    "words": ("named secret", lambda r: ("DB_PASS" + "WORD=", draw(r, 25, string.ascii_lowercase))),
    "hyphens": (
        "named secret",
        lambda r: ("db_pass" + "word: ", "-".join(draw(r, 6, string.ascii_lowercase) for _ in "abc")),
    ),
    "signs": ("named secret", lambda r: ('"pass' + 'word": "', "a(b{&" + draw(r, 8))),
    "option": ("named secret", lambda r: ("--pass" + "word ", draw(r, 9) + "9a")),
    "option-assigned": ("named secret", lambda r: ("--db-pass" + "word=", draw(r, 9) + "9a")),
    "option-token": ("named secret", lambda r: ("--hf-to" + "ken ", draw(r, 30) + "9a")),
    "argv": ("named secret", lambda r: ('["--to' + 'ken", "', draw(r, 30) + "9a")),
    "argv-password": ("named secret", lambda r: ("['--pass" + "word', '", draw(r, 9) + "9a")),
    "argv-escaped": ("named secret", lambda r: ('[\\"--api-k' + 'ey\\", \\"', draw(r, 30) + "9a")),
    "argv-pretty": ("named secret", lambda r: ('    "--to' + 'ken",\n    "', draw(r, 30) + "9a")),
    "argv-yaml": ("named secret", lambda r: ("- --to" + "ken\n- ", draw(r, 30) + "9a")),
}
"""Secrets that are known by what stands before them: kind, and both."""

WRAPPED = (
    "{}",
    'x = "{}"',
    "a\\n{}\\n",
    "--model={} ",
    "é\n{}\n",
    "%3D{}&",
    "\\u0022{}\\u0022",
    "({})",
    "https://host/{}/x",
)
"""Texts that a token may stand in."""


def pem(kind: str) -> str:
    return "-----BEG" + f"IN {kind}PRIVATE " + "KEY-----\\nMIIEpQ\\n"


@pytest.mark.parametrize("name", TOKENS)
@settings(deadline=None)
@given(seed=SEEDS, wrapped=st.sampled_from(WRAPPED))
def test_tokens_are_found_and_not_shown(name: str, seed: int, wrapped: str) -> None:
    kind, make = TOKENS[name]
    token = make(Random(seed))
    text = wrapped.replace("{}", token)
    (found,) = find_secrets(text)
    assert found.kind == kind
    assert text.index(token) - 2 <= found.start <= text.index(token)  # digits of an escape may belong to a token, too
    assert_hidden(found.excerpt, token)


@pytest.mark.parametrize("name", NAMED)
@settings(deadline=None)
@given(seed=SEEDS)
def test_secrets_are_found_by_what_stands_before_them(name: str, seed: int) -> None:
    kind, make = NAMED[name]
    before, secret = make(Random(seed))
    text = (
        f"some words\n{before}{secret}@host/x'\n" if "//" in before and "?" not in before else f"x\n{before}{secret}\n"
    )
    found = find_secrets(text)
    assert kind in {one.kind for one in found}
    for one in found:
        assert_hidden(one.excerpt, secret)


def assert_hidden(excerpt: str, secret: str) -> None:
    """Check that no more of a secret is shown than the letters that all of its kind begin with."""
    assert excerpt.endswith("***")
    assert secret not in excerpt
    assert not any(secret[start : start + 8] in excerpt for start in range(8, len(secret) - 8))


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
def test_private_keys_are_found(kind: str) -> None:
    (found,) = find_secrets(json.dumps({"key": pem(kind)}))
    assert found.kind == "private key"
    assert "MII" not in found.excerpt


def test_each_place_is_told_once_and_in_order() -> None:
    random = Random(7)
    token = TOKENS["hf"][1](random)
    text = "HF_TO" + f"KEN={token}\nhttps://user:{token}@host/\n{TOKENS['aws-id'][1](random)}"
    found = find_secrets(text)
    assert [one.start for one in found] == sorted(one.start for one in found)
    assert [one.kind for one in found] == ["named secret", "password in a URL", "AWS access key"]


@settings(deadline=None)
@given(SEEDS, st.integers(0, 300))
def test_what_stands_around_a_token_does_not_hide_it(seed: int, n_before: int) -> None:
    """Also where the text is cut into pieces to be searched."""
    random = Random(seed)
    token = TOKENS["hf"][1](random)
    before = "é" * (131_072 - 100 + n_before) + " "
    assert [one.start for one in find_secrets(f"{before}{token} x")] == [len(before)]


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_digests_and_pictures_are_no_secrets(content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()
    commit = hashlib.sha1(content).hexdigest()
    picture = base64.b64encode(content).decode()
    document = {
        "sha256": digest,
        "revision": f"sha256:{digest}",
        "commit": commit,
        "image": picture,
        "src": f"data:image/png;base64,{picture}",
        "answer_token": [1, 2],
        "split_key": commit,
        "key": f"tiny-llava/easy-vqa.shape/mlp/c/0/0/{digest[:3]}/0",
        "eos_token": "<|endoftext|>",
    }
    assert find_secrets(json.dumps(document)) == []
    assert find_secrets(f"{digest}  model/task@blur-1/mlp/c/0/0/1/0\n{picture}\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "https://user:password@host/x",
        "https://user:$PASSWORD@host",
        "https://user:$password@host",
        "https://user:${PASS" + "WORD}@host",
        "https://user:%PASSWORD%@host",
        "https://user:{password}@host",
        "https://user:[password]@host",
        "https://user:***@host",
        "https://user:**redacted**@host",
        "https://<user>:<password>@host",
        "s3://bucket/prefix?token=abc",
        "HF_TO" + "KEN=hf_" + "x" * 34,
        "export HF_TO" + "KEN=your_token_here",
        "pass" + "word: str | None = None",
        "the pass" + "word: changeme",
        "Is the secret key: in the picture? yes, no, task-specific-and-long-option",
        "from huggingface_hub import hf_hub_download, hf_raise_for_status",
        "sk-learn, task-specific, risk-averse disk-sk-",
        "tiny-llava/easy-vqa.yes-no@plain-question",
        "http://127.0.0.1:8000/a@b",
        "TOKENIZERS_PARALLELISM=false",
        "AKIA",
        '{"tokenizer": "llava-hf/llava-1.5-7b-hf", "tokenizer_class": "LlamaTokenizerFast2"}',
        '{"token": 0, "n_tokens": 123456789012345678, "tokens": [0, 1], "max_new_tokens": 16}',
        '{"token": "last", "eos_token": "</s>", "pad_token": "<|pad_0123456789|>", "sep_token": "[SEP0123456789]"}',
        '{"token": "bfloat16", "image_token_id": 32000, "secret": false, "password": null, "token_type": "part-0001"}',
        '{"secret": "sha256:0123456789abcdef", "password": "sha256:0123456789abcdef"}',
        '{"sample_id": "COCO_val2014_000000123456-0", "split_key": "0123456789abcdef0123456789abcdef01234567"}',
        '{"key": "tiny-llava/easy-vqa.shape/mlp/c/0/0/1/0", "api": "v1-2024-01-01-preview"}',
        "--max-new-tokens 16 --token last --token-dropout 0.123456 --password --user-name-0123456",
        '["--token", "--model-0123456789abcdef"] parse("--redis-password", required=False)',
        "--api-key $API_KEY --token ${HF_TOKEN} --password <your-password-1>",
        "token = get_token_0123456789(x), password = getpass.getpass1(), secret = options2[0123456789]",
        "What is the password? yes. Password: incorrect. Is the token: red, or the secret: green12?",
        "Authorization: Basic authentication, authorization: token missing, the bearer of this",
        "s3://bucket/prefix@v2 git@github.com:owner/name.git ssh://git@host hf://datasets/owner/name@0123456789abcdef01234567",
        "https://example.org/@someone-0123456789012345 https://ada-lovelace@example.org",
        "fig=3 sig=12 config=abc?sig=small",
        "from huggingface_hub import hf_oauth_application_settings_of_spaces",
        "discord.com/api/webhooks/ MTIz.abcdef.ghi nvapi- xai-explanations dapi dop_v1_ 1//0 AQ.",
        "eyJub3QiOiJhIHRva2VuIn0",
        "",
    ],
)
def test_what_only_reminds_of_secrets_is_passed_by(text: str) -> None:
    assert find_secrets(text) == []


def test_the_demos_documents_hold_none(demo_folder: Path) -> None:
    store = demo_folder / "activations.zarr"
    assert open_dataset(store).run_names()
    documents = [path.read_text() for path in store.rglob("*.json")]
    assert len(documents) > 100
    assert find_secrets("\n".join(documents)) == []
