"""The keys with which a NAS signs its fires."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

ALGORITHM = "ES256"


class SigningKeys:
    """The key pair in use, and the public halves of all that are published."""

    def __init__(self) -> None:
        self._published: list[dict[str, Any]] = []
        self._made = 0
        self.rotate(keeps_old=False)

    def rotate(self, *, keeps_old: bool) -> None:
        """Sign with a new key from now on; the old ones stay published with *keeps_old*."""
        self._made += 1
        self._kid = f"key-{self._made}"
        self._private = ec.generate_private_key(ec.SECP256R1())
        public: dict[str, Any] = ECAlgorithm.to_jwk(self._private.public_key(), as_dict=True)
        published = {**public, "kid": self._kid, "alg": ALGORITHM, "use": "sig"}
        self._published = [*(self._published if keeps_old else ()), published]

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a token with these claims."""
        return jwt.encode(dict(claims), self._private, ALGORITHM, headers={"kid": self._kid})

    def jwks(self) -> dict[str, Any]:
        """Return the published keys, as a JWKS."""
        return {"keys": list(self._published)}
