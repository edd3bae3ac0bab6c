"""Where a team may send its own key: which texts are addresses, and which addresses are public."""

from __future__ import annotations

import pytest

from counterfoil.errors import CallerFault
from counterfoil.providers.addresses import TeamAddresses, check_form

STRICT = TeamAddresses()
OPEN = TeamAddresses.of(["10.1.0.0/16", "127.0.0.1/32", "fd00:1::/32"], [443, 8443])


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::1",
        "2001:0:5ef5:79fb::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "localhost",
        "127.1",
        "",
    ],
)
def test_what_is_not_public_is_refused(address: str) -> None:
    """Private, loopback, link-local, shared, multicast, reserved, metadata, and what carries one of them inside."""
    assert not STRICT.permits(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "104.18.7.192",
        "172.32.0.1",
        "100.128.0.1",
        "2606:4700::6812:7c0",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ],
)
def test_public_addresses_pass(address: str) -> None:
    """Also inside a mapped address, and behind the NAT of an IPv6-only network."""
    assert STRICT.permits(address)


def test_the_operator_opens_networks_one_by_one() -> None:
    """What is allowed passes in every spelling; its neighbours do not."""
    assert all(map(OPEN.permits, ("10.1.2.3", "127.0.0.1", "::ffff:127.0.0.1", "fd00:1::9", "8.8.8.8")))
    assert not any(map(OPEN.permits, ("10.2.0.1", "127.0.0.2", "fd00:2::9", "169.254.169.254")))


@pytest.mark.parametrize(
    "base_url",
    [
        "https://api.example.com",
        "https://api.example.com/",
        "https://api.example.com/v1",
        "https://models/openai/v1",
        "https://api.example.com./v1/a-b_c~d",
        "https://8.8.8.8/v1",
        "https://[2606:4700::6812:7c0]:443/v1",
    ],
)
def test_an_address_is_https_with_a_plain_path(base_url: str) -> None:
    """The ordinary forms pass."""
    STRICT.check(base_url)


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "api.example.com",
        "http://api.example.com/v1",
        "HTTPS://api.example.com/v1",
        "file:///etc/passwd",
        "gopher://api.example.com/",
        "https://",
        "https:///v1",
        "https://user@api.example.com/v1",
        "https://user:pass@api.example.com/v1",
        "https://@api.example.com/v1",
        "https://api.example.com@10.0.0.1/v1",
        "https://api.example.com\\@10.0.0.1/v1",
        "https://api.example.com/v1?x=1",
        "https://api.example.com/v1#x",
        "https://api.example.com/a/../b",
        "https://api.example.com/./v1",
        "https://api.example.com//v1",
        "https://api.example.com/%2e%2e/v1",
        "https://api.example.com/v1\r\nhost: x",
        "https://api.example.com/v 1",
        "https://api.example.com:0/v1",
        "https://api.example.com:99999/v1",
        "https://api.example.com:x/v1",
        "https://ex\u00e4mple.com/v1",
        "https://\u2460\u2461\u2466.0.0.1/v1",
        "https://127.1/v1",
        "https://2130706433/v1",
        "https://0x7f000001/v1",
        "https://0x7f.0.0.1/v1",
        "https://0177.0.0.1/v1",
        "https://[::1%25lo]/v1",
        "https://[::1%lo]/v1",
        "https://[v1.x]/v1",
        "https://-bad.example.com/v1",
        "https://a..example.com/v1",
        "https://a b.example.com/v1",
        f"https://{'a' * 64}.example.com/v1",
        "https://api.example.com/" + "a" * 600,
    ],
)
def test_what_two_readers_could_read_in_two_ways_is_refused(base_url: str) -> None:
    """When it is set, not when it is used; the message names the field and repeats nothing of the text."""
    with pytest.raises(CallerFault) as caught:
        check_form(base_url)
    assert (caught.value.code, caught.value.param) == ("user:invalid_field", "base_url")
    assert "example" not in caught.value.message


@pytest.mark.parametrize(
    "base_url",
    [
        "https://api.example.com:22/v1",
        "https://api.example.com:8443/v1",
        "https://127.0.0.1/v1",
        "https://169.254.169.254/latest",
        "https://[::1]/v1",
        "https://[::ffff:10.0.0.1]/v1",
    ],
)
def test_what_could_never_be_used_is_refused_when_it_is_set(base_url: str) -> None:
    """A port that is not listed, an address written out that is not public."""
    with pytest.raises(CallerFault) as caught:
        STRICT.check(base_url)
    assert caught.value.param == "base_url"


@pytest.mark.parametrize(
    "base_url", ["https://api.example.com:8443/v1", "https://127.0.0.1/v1", "https://10.1.0.9:8443"]
)
def test_what_the_operator_allows_may_be_set(base_url: str) -> None:
    """Ports and networks of the configuration."""
    OPEN.check(base_url)
