#!/bin/sh
# A SLURM cluster of one node on this machine, for the tests: `cluster.sh start`, then `cluster.sh stop`.
# As root, also in a container, without systemd. On Debian: apt-get install slurm-wlm munge
set -eu

wait_for() {  # the command must succeed within 30 s
    for _ in $(seq 60); do "$@" >/dev/null 2>&1 && return; sleep 0.5; done
    echo "cluster.sh: gave up waiting for: $*" >&2
    exit 1
}

configure() {
    mkdir -p /etc/slurm /var/lib/slurm/ctld /var/lib/slurm/d
    cat >/etc/slurm/slurm.conf <<CONF
ClusterName=one_node
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation=/var/lib/slurm/ctld
SlurmdSpoolDir=/var/lib/slurm/d
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/var/log/slurmctld.log
SlurmdLogFile=/var/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=2 RealMemory=$(free -m | awk '/^Mem/ { print int($2 * 0.9) }')
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
CONF
    # config_overrides: two jobs at a time, however many cores there are
    # cred_expire: a requeued job waits so many seconds (else 120) before it starts again
}

start() {
    if scontrol ping >/dev/null 2>&1 && [ "$(sinfo -h -o %T)" = idle ]; then return; fi
    configure
    if ! munge -n >/dev/null 2>&1; then
        mkdir -p /run/munge
        chown munge: /run/munge
        runuser -u munge -- /usr/sbin/munged
        wait_for munge -n
    fi
    slurmctld -c  # without what an earlier one left
    wait_for scontrol ping
    slurmd
    wait_for sh -c 'sinfo -h -o %T | grep -q idle'
}

stop() {
    scancel --user root 2>/dev/null || true
    wait_for sh -c '! scontrol ping || [ -z "$(squeue --noheader)" ]'
    for daemon in slurmd slurmctld munge/munged; do
        file=/run/$daemon.pid
        [ ! -f "$file" ] || kill "$(cat "$file")" 2>/dev/null || true
    done
    wait_for sh -c '! pgrep -x "slurmd|slurmctld|munged"'
}

case ${1:-} in
    start) start ;;
    stop) stop ;;
    *) echo "usage: $0 start|stop" >&2; exit 2 ;;
esac
