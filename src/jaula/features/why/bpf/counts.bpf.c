// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Programs of the engine's metrics: they count what seccomp and Landlock refuse to containers.
 *
 * They are attached to functions of the kernel (fentry, fexit) and can neither refuse nor change an
 * operation. `scripts/bpf` compiles this file for x86-64. Structures have only the members in use;
 * libbpf relocates them to the running kernel. Linux 6.1 has all that is not optional.
 *
 * Facts about the kernel:
 *
 * - __seccomp_filter runs in each call of a process that has a filter. It returns 0 if the call goes
 *   on, else -1. A refused call has a result then. A call that ends in SIGSYS has its number as the
 *   result (kernel/seccomp.c: syscall_rollback). The answer of a supervisor
 *   (SECCOMP_RET_USER_NOTIF) may be a success.
 * - The number of arguments of __seccomp_filter differs between versions; bpf_get_func_ret knows it.
 * - landlock_log_denial (Linux 6.15) runs in each refusal, also while audit is off.
 */

#include "container.bpf.h"

#define PREFIX "jaula-"
#define PREFIX_SIZE 6  /* bytes, without the end of the text */
#define SCOPE_SIZE 76  /* bytes of jaula-ID.scope */
#define NAME_SIZE 80
#define NR_clone3 435
#define ENOSYS 38

struct task_struct;

struct pt_regs___result {
	unsigned long ax, orig_ax;
} RELOCATED;

enum layer { SECCOMP, LANDLOCK };

struct key {
	char id[ID_SIZE]; /* digits of the container's id */
	u32 layer;
	u32 pad;
};

struct value {
	u64 count;
	u32 number; /* system call of the last refusal, of seccomp */
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key);
	__type(value, struct value);
} counts SEC(".maps");

/* Refusals that the full table has no entry for. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} lost SEC(".maps");

/*
 * Set the id that is in the name of a cgroup: ID, or PREFIX-ID.scope with systemd. The engine ignores
 * an id that is none of its containers'.
 */
static __noinline int read_id(struct cgroup *cgroup, struct key *key)
{
	char name[NAME_SIZE] = {};
	long size;

	if (!key)
		return 0;
	size = bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(cgroup, kn, name)) - 1;
	if (size == ID_SIZE) {
		__builtin_memcpy(key->id, name, ID_SIZE);
		return 1;
	}
	if (size == SCOPE_SIZE && !__builtin_memcmp(name, PREFIX, PREFIX_SIZE)) {
		__builtin_memcpy(key->id, name + PREFIX_SIZE, ID_SIZE);
		return 1;
	}
	return 0;
}

/* Set the id of the container of a task. The outermost cgroup counts: a container names those below. */
static __noinline int find_container(struct task_struct *task, u32 hierarchy, struct key *key)
{
	struct cgroup *cgroup = cgroup_of(task, hierarchy);
	int level = BPF_CORE_READ(cgroup, level);

	for (int i = 0; i < LEVELS; i++) {
		if (i > level)
			break;
		if (read_id(ancestor_of(cgroup, i), key))
			return 1;
	}
	return 0;
}

static __always_inline void count(struct task_struct *task, u32 layer, u32 number)
{
	struct key key = { .layer = layer };
	struct value first = {}, *value;
	u32 zero = 0, hierarchy;
	u64 *number_lost;

	for (hierarchy = 0; hierarchy < HIERARCHIES; hierarchy++) {
		if (find_container(task, hierarchy, &key))
			break;
	}
	if (hierarchy == HIERARCHIES)
		return;
	value = bpf_map_lookup_elem(&counts, &key);
	if (!value) {
		/* Another processor may be faster: its entry is used then. */
		bpf_map_update_elem(&counts, &key, &first, BPF_NOEXIST);
		value = bpf_map_lookup_elem(&counts, &key);
	}
	if (value) {
		__sync_fetch_and_add(&value->count, 1);
		value->number = number;
		return;
	}
	number_lost = bpf_map_lookup_elem(&lost, &zero);
	if (number_lost)
		__sync_fetch_and_add(number_lost, 1);
}

SEC("fexit/__seccomp_filter")
int seccomp(u64 *context)
{
	struct pt_regs___result *regs;
	struct task_struct *task;
	unsigned long result, number;
	u64 returned = 0;

	bpf_get_func_ret(context, &returned);
	if (!(u32)returned)
		return 0;
	task = bpf_get_current_task_btf();
	regs = (struct pt_regs___result *)bpf_task_pt_regs(task);
	result = BPF_CORE_READ(regs, ax);
	number = BPF_CORE_READ(regs, orig_ax);
	if (result != number && result < -(unsigned long)MAX_ERRNO)
		return 0;
	/* The answer makes a C library use clone(2). */
	if (number == NR_clone3 && result == -(unsigned long)ENOSYS)
		return 0;
	count(task, SECCOMP, number);
	return 0;
}

/* Linux 6.15. */
SEC("?fentry/landlock_log_denial")
int landlock(u64 *context)
{
	count(bpf_get_current_task_btf(), LANDLOCK, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
