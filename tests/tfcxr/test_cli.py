"""The command list and unknown commands."""

import subprocess
import sys

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


def test_a_foreign_package_called_tools_does_not_hide_ours(tmp_path):
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "__init__.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from tfcxr import cli; sys.exit(cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "import-reference", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: tfcxr import-reference" in done.stdout


def test_python_dash_m_tfcxr_is_the_same():
    done = subprocess.run([sys.executable, "-m", "tfcxr"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: tfcxr COMMAND")
