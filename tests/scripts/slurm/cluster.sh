#!/bin/bash
# A real Slurm of two nodes (jddb1, jddb2) on this machine, as root, listening on 127.0.0.1 alone:
#   eval "$(cluster.sh start DIR)"   starts it, waits until jobs can run, and sets SLURM_CONF; DIR must not exist
#   cluster.sh stop DIR              ends everything it has started, jobs and orphans included; logs stay in DIR
# Packages (Debian 12): apt-get install -y --no-install-recommends slurm-wlm munge
# Settings, in seconds: KILLWAIT (30, as Slurm's own), CRED (5; a requeued job waits a second longer), SLURMDTIMEOUT (20);
# HOSTS=0 leaves the nodes' names out of /etc/hosts: Slurm works without, but nothing that connects to a node by its name.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

fail() { echo "cluster.sh: $1" >&2; exit 1; }

free_ports() {
    python3 - <<'PY'
import socket
def free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(('127.0.0.1', port)) != 0
print(*next((p, p + 1, p + 2) for p in range(6817, 9900, 10) if all(map(free, range(p, p + 3)))))
PY
}

# Processes of the cluster: daemons and steps by a variable of their own, jobs' processes by theirs. No ancestor of this shell.
ours() {
    local pid above=" " up=$$
    while [ "$up" -gt 0 ]; do above+="$up "; up=$(awk '/^PPid:/ {print $2}' "/proc/$up/status" 2>/dev/null || echo 0); done
    { grep -slzxF "JDDB_SLURM=$1" /proc/[0-9]*/environ || true
      grep -slzxF "SLURM_CONF=$1/slurm.conf" /proc/[0-9]*/environ | xargs -r grep -slz '^SLURM_JOB_ID=' || true
    } | tr -dc '0-9\n' | sort -u | while read -r pid; do
        [[ $above == *" $pid "* ]] || echo "$pid"
    done
}

start() {
    local dir=$1 host ctld slurmd slurmd2 node command
    [ "$(id -u)" = 0 ] || fail 'must be root'
    for command in slurmctld slurmd munged scontrol python3; do
        command -v $command >/dev/null || fail "$command is missing: apt-get install -y slurm-wlm munge"
    done
    [ ! -e "$dir" ] || fail "$dir is there already"
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    chmod 755 "$dir"
    mkdir -m 755 "$dir/munge" "$dir/ctld" "$dir/jddb1" "$dir/jddb2"
    host=$(uname -n | cut -d. -f1)
    read -r ctld slurmd slurmd2 <<<"$(free_ports)"
    sed -e "s|@HOST@|$host|g; s|@DIR@|$dir|g; s|@CTLD@|$ctld|g; s|@SLURMD@|$slurmd|g; s|@SLURMD2@|$slurmd2|g" \
        -e "s|@KILLWAIT@|${KILLWAIT:-30}|g; s|@CRED@|${CRED:-5}|g; s|@SLURMDTIMEOUT@|${SLURMDTIMEOUT:-20}|g" \
        "$here/slurm.conf.in" > "$dir/slurm.conf"
    # GPUs that are none: jobs may ask for them, and see CUDA_VISIBLE_DEVICES.
    echo 'NodeName=jddb[1-2] Name=gpu File=/dev/null,/dev/zero' > "$dir/gres.conf"
    export SLURM_CONF=$dir/slurm.conf JDDB_SLURM=$dir
    failed=$dir
    trap 'unset SLURM_CONF JDDB_SLURM; stop "$failed"; fail "no cluster; logs are in $failed"' EXIT

    # Processes of a training connect to the first node by its name.
    if [ "${HOSTS:-1}" = 1 ]; then
        for node in jddb1 jddb2; do
            echo "127.0.0.1 $node # JDDB_SLURM=$dir" >> /etc/hosts
        done
    fi

    head -c 128 /dev/urandom > "$dir/munge/key"
    chmod 400 "$dir/munge/key"
    munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munged.log" --seed-file="$dir/munge/seed" > "$dir/munged.out" 2>&1
    slurmctld -c > "$dir/slurmctld.out" 2>&1
    for node in jddb1 jddb2; do
        slurmd -N $node > "$dir/$node.out" 2>&1
    done

    for _ in $(seq 300); do
        if [ "$(sinfo -h -N -p gpu -o %T 2>/dev/null | sort | uniq -c | xargs)" = '2 idle' ]; then
            trap - EXIT
            echo "export SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 0.2
    done
    tail -n 5 "$dir"/*.log >&2
    exit 1
}

stop() {
    local dir=$1 signal pids=
    [ -d "$dir" ] || return 0
    dir=$(cd "$dir" && pwd)
    # SIGTERM lets the daemons end in order; steps and trainings only take a note of it.
    for signal in TERM KILL; do
        pids=$(ours "$dir")
        # shellcheck disable=SC2086
        [ -z "$pids" ] || kill -$signal $pids 2>/dev/null || true
        for _ in $(seq 25); do
            pids=$(ours "$dir")
            [ -n "$pids" ] || break
            sleep 0.2
        done
    done
    sed "\|# JDDB_SLURM=$dir\$|d" /etc/hosts > "$dir/hosts" && cat "$dir/hosts" > /etc/hosts  # in place: it may be a mount
    [ -z "$pids" ] || fail "still running: $pids"
}

case "${1:-} ${2:+dir}" in
    'start dir') start "$2" ;;
    'stop dir') stop "$2" ;;
    *) sed -n 2,7p "$0"; exit 2 ;;
esac
