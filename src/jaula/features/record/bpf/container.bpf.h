// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * What the programs of `jaula record` and `jaula why` share: structures of the kernel with only the
 * members in use, and the cgroup of a task.
 */

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define MAX_ERRNO 4095
#define TS_COMPAT 2
#define X32_BIT 0x40000000
#define LEVELS 32  /* depth of cgroups that is searched */
#define ID_SIZE 64 /* bytes, digits of a container's id */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define RELOCATED __attribute__((preserve_access_index))

struct fdtable {
	u32 max_fds;
	struct file **fd;
} RELOCATED;

struct files_struct {
	struct fdtable *fdt;
} RELOCATED;

struct linux_binprm {
	const char *filename;
} RELOCATED;

struct kernfs_node {
	u64 id;
	const char *name;
} RELOCATED;

struct cgroup_subsys_state;

struct cgroup {
	int level;
	struct kernfs_node *kn;
	struct cgroup_subsys_state *subsys[1];
	struct cgroup *ancestors[1];
} RELOCATED;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
} RELOCATED;

struct css_set {
	struct cgroup_subsys_state *subsys[1];
	struct cgroup *dfl_cgrp;
} RELOCATED;

enum cgroup_subsys_id {
	pids_cgrp_id,
	memory_cgrp_id,
	devices_cgrp_id,
	freezer_cgrp_id,
	cpu_cgrp_id,
};

struct thread_info {
	u32 status;
} RELOCATED;

struct user_namespace {
	int level;
} RELOCATED;

struct pt_regs {
	unsigned long r10, r9, r8, dx, si, di, cx, bx, bp, orig_ax;
} RELOCATED;

struct in6_addr {
	u8 bytes[16];
};

struct kernel_siginfo {
	int si_signo;
	int si_errno;
	int si_code;
} RELOCATED;

struct bpf_iter_meta;

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} RELOCATED;

/* Members of the task that `cgroup_of` needs; each program declares the structure of its own. */
struct task_struct___cgroups {
	struct css_set *cgroups;
} RELOCATED;

enum hierarchy { UNIFIED, PIDS, MEMORY, DEVICES, FREEZER, CPU, HIERARCHIES };

/* Return the cgroup of a task in a hierarchy. */
static __always_inline struct cgroup *cgroup_of(struct task_struct *task, u32 hierarchy)
{
	struct css_set *set = BPF_CORE_READ((struct task_struct___cgroups *)task, cgroups);
	struct cgroup_subsys_state *state = 0;
	u32 subsystem;

	switch (hierarchy) {
	case UNIFIED:
		return BPF_CORE_READ(set, dfl_cgrp);
	case PIDS:
		subsystem = bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id);
		break;
	case MEMORY:
		subsystem = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
		break;
	case DEVICES:
		subsystem = bpf_core_enum_value(enum cgroup_subsys_id, devices_cgrp_id);
		break;
	case FREEZER:
		subsystem = bpf_core_enum_value(enum cgroup_subsys_id, freezer_cgrp_id);
		break;
	default:
		subsystem = bpf_core_enum_value(enum cgroup_subsys_id, cpu_cgrp_id);
	}
	bpf_probe_read_kernel(&state, sizeof(state),
			      (void *)set + bpf_core_field_offset(struct css_set, subsys) +
				      subsystem * sizeof(void *));
	return BPF_CORE_READ(state, cgroup);
}

/* Return the ancestor of a cgroup at a level, itself at its own. */
static __always_inline struct cgroup *ancestor_of(struct cgroup *cgroup, int level)
{
	struct cgroup *ancestor = 0;

	bpf_probe_read_kernel(&ancestor, sizeof(ancestor),
			      (void *)cgroup + bpf_core_field_offset(struct cgroup, ancestors) +
				      level * sizeof(void *));
	return ancestor;
}
