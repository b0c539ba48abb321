from __future__ import annotations

import pytest

from schemas.flags import Parser, UsageError


@pytest.fixture
def parser() -> Parser:
    parser = Parser(prog="python -m shop", description="First line.\n  Second.")
    parser.add_argument("--url", type=int)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("show").add_argument("--count", type=int)
    return parser


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--url=soon"], "shop: --url: invalid int value: 'soon'; see --help\n"),
        (["--nothing"], "shop: unrecognized arguments: --nothing; see --help\n"),
        (["--ur=1"], "shop: unrecognized arguments: --ur=1; see --help\n"),
        (["show", "--count=x"], "shop: --count: invalid int value: 'x'; see --help\n"),
        (["show", "--coun=1"], "shop: unrecognized arguments: --coun=1; see --help\n"),
    ],
)
def test_a_wrong_command_line_ends_with_status_2_and_one_line(
    parser: Parser, capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(argv)
    assert (ended.value.code, capsys.readouterr().err) == (2, said)


def test_who_goes_on_with_unknown_flags_gets_the_error_itself(parser: Parser) -> None:
    with pytest.raises(UsageError, match="--url: invalid int value: 'soon'; see --help"):
        parser.parse_known_args(["--url=soon", "--else"])


def test_no_password_is_shown(parser: Parser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["--url=redis://:hunter2@host:6379"])
    assert "hunter2" not in capsys.readouterr().err


def test_the_story_is_shown_as_it_is_written(parser: Parser) -> None:
    assert "First line.\n  Second." in parser.format_help()
