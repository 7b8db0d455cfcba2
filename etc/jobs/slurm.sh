#!/bin/bash
{# The batch script for Slurm. Name, size, limits and logs are options of sbatch, not lines here: `#SBATCH` lines give way to
them. Slurm carries no files, so each pilot copies its own from a directory that all nodes share, and works among the copies. #}
umask 077
{# Slurm's word that the time is nearly up comes to this shell alone. The pilot is told, and waited for: it gives its token back. #}
told=
pilot=
trap 'told=1; [ -z "$pilot" ] || kill -TERM "$pilot" 2>/dev/null' TERM
sandbox={{ sandbox | sh }}
scratch=${TMPDIR:-/tmp}
{# What a pilot left behind that was killed: the files hold credentials. Nothing that lives is so old. #}
find "$scratch" -maxdepth 1 -name 'aglowd-job-*' -user "$(id -u)" -mtime +{{ keep_days }} -exec rm -rf -- {} + 2>/dev/null
work=$scratch/aglowd-job-$SLURM_JOB_ID-$$
trap 'cd / && rm -rf -- "$work"' EXIT
mkdir -m 700 -- "$work" || exit 75
cd "$work" || exit 75
{% for file in files %}
cp -- "$sandbox"/{{ file | sh }} . || exit 75
{% endfor %}
{% if executable in files %}
chmod u+x {{ executable | sh }} || exit 75
{% endif %}
touch -c -- "$sandbox"
export TMPDIR=$work
[ -z "$told" ] || exit 143
{{ ("./" if executable in files else "") ~ executable | sh }}{% for word in arguments %} {{ word | sh }}{% endfor %} </dev/null &
pilot=$!
[ -z "$told" ] || kill -TERM "$pilot"
wait "$pilot"
code=$?
while [ -n "$told" ]; do
    told=
    wait "$pilot"
    code=$?
done
exit "$code"
