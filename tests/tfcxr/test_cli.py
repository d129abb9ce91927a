"""The command list and unknown commands."""

from tfcxr import cli


def test_lists_every_command(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)


def test_unknown_command_suggests_a_near_one(capsys):
    assert cli.main(["train-gam"]) == 2
    assert capsys.readouterr().err == "error: train-gam: is not a command; did you mean train-gan?\n"


def test_every_command_has_help(capsys):
    for name in cli.COMMANDS:
        assert cli.main([name, "--help"]) == 0
        out = capsys.readouterr().out
        assert f"Usage: tfcxr {name} --flag=value" in out
        assert "--flagfile" in out


def test_a_bad_flag_of_a_command_exits_2(capsys):
    assert cli.main(["evaluate", "--model=/no/such/folder"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
