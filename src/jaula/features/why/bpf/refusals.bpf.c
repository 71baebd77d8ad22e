// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Programs of `jaula why`: they send what the kernel refused to the processes of one container.
 *
 * They are attached to raw tracepoints with BTF, which can neither refuse nor change an operation.
 * `scripts/bpf` compiles this file for x86-64. Structures have only the members in use; libbpf
 * relocates them to the running kernel. Linux 6.1 has all that is not optional.
 *
 * Facts about the kernel:
 *
 * - A seccomp filter runs before the tracepoint sys_enter. A call that it refuses has an exit and no
 *   entry (kernel/entry: syscall_trace_enter), so an exit without an entry proves the layer.
 * - A refused capability is checked between entry and exit of the call, by the same thread.
 * - Registers keep the arguments of a system call until its exit. The memory that they point to may
 *   have been changed by another thread.
 */

#include "container.bpf.h"

#define PREFIX 6    /* bytes of `jaula-` */
#define TEXT_SIZE 256
#define KEY_TEXT 64
#define NAME_SIZE 64
#define LIMITS 16

typedef struct {
	u32 val;
} kuid_t;

typedef struct {
	u64 val;
} kernel_cap_t;

struct cred {
	kuid_t fsuid;
	kernel_cap_t cap_effective;
	struct user_namespace *user_ns;
} RELOCATED;

struct rlimit {
	unsigned long rlim_cur;
	unsigned long rlim_max;
};

struct signal_struct {
	int group_exit_code;
	unsigned long maxrss;
	struct rlimit rlim[LIMITS];
} RELOCATED;

struct file_system_type {
	const char *name;
} RELOCATED;

struct super_block {
	u32 s_dev;
	struct file_system_type *s_type;
} RELOCATED;

struct qstr {
	const u8 *name;
} RELOCATED;

struct dentry {
	struct qstr d_name;
	struct super_block *d_sb;
} RELOCATED;

struct path {
	struct dentry *dentry;
} RELOCATED;

struct file {
	struct path f_path;
} RELOCATED;

struct task_struct {
	struct thread_info thread_info;
	int pid;
	int tgid;
	int exit_code;
	unsigned long atomic_flags;
	char comm[16];
	struct task_struct *group_leader;
	const struct cred *real_cred;
	struct signal_struct *signal;
	struct css_set *cgroups;
	struct files_struct *files;
} RELOCATED;

struct sock_common {
	u32 skc_daddr;
	u16 skc_dport, skc_family;
	struct in6_addr skc_v6_daddr;
} RELOCATED;

struct sock {
	struct sock_common __sk_common;
	u16 sk_protocol;
	int sk_err;
} RELOCATED;

/* --- the values that the command sets and reads --------------------------------------------------- */

const volatile struct {
	u64 id[ID_SIZE / 8]; /* of the container: a part of the name of its cgroup */
} config SEC(".rodata.config");

enum kind { REFUSAL, SIGNAL, EXIT, OOM };

#define COMPAT 1      /* flags: a call of the i386 ABI */
#define NO_ENTRY 2    /* the call was refused before the tracepoint sys_enter */
#define NO_NEW_PRIVS 4
#define INSIDE 8      /* of a signal: the sender is a process of the container */
#define RESULT_OK 16  /* the call succeeded, and a capability was refused in it */

struct event {
	u32 kind;
	u32 flags;
	u32 number;       /* system call; of a signal its number */
	u32 error;        /* of a signal its si_code; of an exit the wait status */
	u32 pid;
	u32 other;        /* of a signal the sender's pid */
	u64 time;         /* nanoseconds since boot */
	u64 args[6];      /* of an exit args[0] is the largest resident set, in pages */
	u64 refused;      /* capabilities, as bits */
	u64 effective;    /* capabilities, as bits */
	u32 level;        /* of the user namespace of the last refused capability */
	u32 own_level;    /* of the process's user namespace */
	u32 fsuid;        /* of the host */
	u32 device;       /* file system of a descriptor */
	u64 limits[LIMITS];
	char filesystem[16];
	char name[16];    /* comm of the thread; of a signal that of the sender */
	char program[NAME_SIZE];
	u32 size;
	u32 pad;
	u8 text[TEXT_SIZE]; /* path, or struct sockaddr */
};

struct key {
	u32 number;
	u32 error;
	u32 flags;
	u32 pad;
	u64 refused;
	u64 args[2];
	char name[16];
	char text[KEY_TEXT];
};

struct value {
	u64 count;
	u64 sent;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 2 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct key);
	__type(value, struct value);
} refusals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} lost SEC(".maps");

struct thread {
	u64 refused;
	u32 level;
	u32 entered;
	u32 number; /* the call that was entered last */
	u32 pad;
	char program[NAME_SIZE];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread);
} threads SEC(".maps");

/* --- membership --------------------------------------------------------------------------------- */

static __always_inline int is_id(const char *text)
{
	u64 words[ID_SIZE / 8] = {};

	if (bpf_probe_read_kernel(words, sizeof(words), text))
		return 0;
	for (int i = 0; i < ID_SIZE / 8; i++) {
		if (words[i] != config.id[i])
			return 0;
	}
	return 1;
}

/*
 * Return whether the name of a cgroup at an address is the container's: ID, or PREFIX-ID.scope with
 * systemd. The kernel verifies a function that is not static once, and not for each of its calls.
 */
__noinline int has_id(u64 address)
{
	const char *name = (const char *)address;

	return name && (is_id(name) || is_id(name + PREFIX));
}

/* Return whether the cgroup at an address is the container's or is below it. */
__noinline int is_container(u64 address)
{
	struct cgroup *cgroup = (struct cgroup *)address, *ancestor;
	int level = BPF_CORE_READ(cgroup, level);

	for (int i = 0; i < LEVELS; i++) {
		if (i > level)
			break;
		ancestor = ancestor_of(cgroup, i);
		if (has_id((u64)BPF_CORE_READ(ancestor, kn, name)))
			return 1;
	}
	return 0;
}

/* A container has a cgroup in the hierarchies that it has limits in. */
static __always_inline int in_container(struct task_struct *task)
{
	for (u32 hierarchy = 0; hierarchy < HIERARCHIES; hierarchy++) {
		if (is_container((u64)cgroup_of(task, hierarchy)))
			return 1;
	}
	return 0;
}

static __always_inline struct thread *thread_of(struct task_struct *task)
{
	return bpf_task_storage_get(&threads, task, 0, 0);
}

/* A thread that is marked within a call has entered it. */
static __always_inline struct thread *mark(struct task_struct *task)
{
	struct thread thread = { .entered = 1 };

	return bpf_task_storage_get(&threads, task, &thread, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

static __always_inline void lose(void)
{
	u32 zero = 0;
	u64 *number = bpf_map_lookup_elem(&lost, &zero);

	if (number)
		__sync_fetch_and_add(number, 1);
}

/* Run once, after the other programs are attached: mark the threads that exist. */
SEC("iter/task")
int mark_threads(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;

	if (task && in_container(task))
		mark(task);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(fork, struct task_struct *parent, struct task_struct *child)
{
	struct thread *thread = thread_of(parent), *created;

	if (!thread)
		return 0;
	created = mark(child);
	if (created)
		__builtin_memcpy(created->program, thread->program, NAME_SIZE);
	return 0;
}

/* A process that enters the container from outside is followed from its first program on. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct thread *thread = thread_of(task);

	if (!thread) {
		if (!in_container(task))
			return 0;
		thread = mark(task);
		if (!thread)
			return 0;
	}
	bpf_probe_read_kernel_str(thread->program, NAME_SIZE, BPF_CORE_READ(bprm, filename));
	return 0;
}

/* --- system calls ------------------------------------------------------------------------------- */

SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *regs, long number)
{
	struct thread *thread = thread_of(bpf_get_current_task_btf());

	if (thread) {
		thread->entered = 1;
		thread->refused = 0;
		thread->level = 0;
		thread->number = number;
	}
	return 0;
}

static __always_inline struct file *file_of(struct task_struct *task, u32 descriptor)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file *file = 0;

	if (descriptor < BPF_CORE_READ(table, max_fds))
		bpf_probe_read_kernel(&file, sizeof(file),
				      BPF_CORE_READ(table, fd) + descriptor);
	return file;
}

/* What a call names: the argument that is a path, an address, a descriptor or a number. */
enum operand { NONE, PATH, ADDRESS, DESCRIPTOR, NUMBERS };

struct operands {
	u32 kind;
	u32 index;
};

#define ALL(kind_, index_)                      \
	do {                                    \
		result.kind = kind_;            \
		result.index = index_;          \
		return result;                  \
	} while (0)

/* arch/x86/entry/syscalls/syscall_64.tbl */
static __always_inline struct operands operands_of(u32 number)
{
	struct operands result = {};

	switch (number) {
	case 2: case 4: case 6: case 21: case 59: case 76: case 80: case 82: case 83: case 84:
	case 85: case 86: case 87: case 89: case 90: case 92: case 94: case 132: case 133:
	case 137: case 155: case 161: case 163: case 166: case 167: case 168: case 188: case 189:
	case 191: case 192: case 197: case 198: case 235: case 170: case 171:
		ALL(PATH, 0);
	case 88: case 165: case 257: case 258: case 259: case 260: case 262: case 263: case 264:
	case 265: case 268: case 269: case 280: case 303: case 316: case 322: case 332: case 428:
	case 437: case 439: case 442: case 452: case 179:
		ALL(PATH, 1);
	case 266:
		ALL(PATH, 2);
	case 42: case 49:
		ALL(ADDRESS, 1);
	case 44:
		ALL(ADDRESS, 4);
	case 0: case 1: case 17: case 18: case 19: case 20: case 16: case 40: case 73: case 74:
	case 75: case 77: case 91: case 93: case 190: case 285: case 295: case 296: case 81:
		ALL(DESCRIPTOR, 0);
	case 9:
		ALL(DESCRIPTOR, 4);
	case 41: case 53: case 54: case 56: case 62: case 101: case 105: case 106: case 113:
	case 114: case 117: case 119: case 135: case 141: case 144: case 157: case 160: case 200:
	case 227: case 234: case 250: case 272: case 302: case 308: case 321: case 425:
		ALL(NUMBERS, 0);
	}
	return result;
}

static __always_inline int is_fork(u32 number)
{
	return number == 56 || number == 57 || number == 58 || number == 435;
}

/* Return whether an error of a call is a refusal. Others are the program's daily life. */
static __always_inline int is_refusal(u32 number, u32 error)
{
	switch (error) {
	case 1:   /* EPERM */
	case 13:  /* EACCES */
	case 23:  /* ENFILE */
	case 24:  /* EMFILE */
	case 27:  /* EFBIG */
	case 28:  /* ENOSPC */
	case 30:  /* EROFS */
	case 38:  /* ENOSYS */
	case 122: /* EDQUOT */
		return 1;
	case 2:   /* ENOENT */
	case 7:   /* E2BIG */
	case 8:   /* ENOEXEC */
	case 20:  /* ENOTDIR */
	case 80:  /* ELIBBAD */
		return number == 59 || number == 322 ||
		       (error == 2 && (number == 2 || number == 257));
	case 6:   /* ENXIO */
	case 19:  /* ENODEV */
	case 75:  /* EOVERFLOW */
		return number == 2 || number == 257 || number == 437 || number == 165;
	case 11:  /* EAGAIN */
		return is_fork(number) || number == 149 || number == 151 || number == 105 ||
		       number == 117;
	case 12:  /* ENOMEM */
		return is_fork(number) || number == 9 || number == 12 || number == 25 ||
		       number == 149 || number == 151 || number == 325;
	case 22:  /* EINVAL: an id that the user namespace does not map, an unbound address family */
		return number == 92 || number == 93 || number == 94 || number == 260 ||
		       number == 105 || number == 106 || number == 113 || number == 114 ||
		       number == 116 || number == 117 || number == 119;
	case 93:  /* EPROTONOSUPPORT */
	case 94:  /* ESOCKTNOSUPPORT */
	case 97:  /* EAFNOSUPPORT */
		return number == 41 || number == 53;
	case 98:  /* EADDRINUSE */
	case 99:  /* EADDRNOTAVAIL */
	case 100: /* ENETDOWN */
	case 101: /* ENETUNREACH */
	case 110: /* ETIMEDOUT */
	case 111: /* ECONNREFUSED */
	case 113: /* EHOSTUNREACH */
		return number == 42 || number == 44 || number == 46 || number == 49 || number == 50;
	}
	return 0;
}

/* Fill the parts of an event that describe a thread. */
static __noinline int describe(struct event *event, struct task_struct *task)
{
	const struct cred *cred;

	if (!event || !task)
		return 0;
	cred = BPF_CORE_READ(task, real_cred);
	event->time = bpf_ktime_get_boot_ns();
	event->pid = BPF_CORE_READ(task, tgid);
	event->fsuid = BPF_CORE_READ(cred, fsuid.val);
	event->own_level = BPF_CORE_READ(cred, user_ns, level);
	bpf_probe_read_kernel(&event->effective, 8,
			      (void *)cred + bpf_core_field_offset(struct cred, cap_effective));
	if (BPF_CORE_READ(task, atomic_flags) & 1)
		event->flags |= NO_NEW_PRIVS;
	bpf_probe_read_kernel_str(event->name, sizeof(event->name),
				  (void *)task + bpf_core_field_offset(struct task_struct, comm));
	for (int i = 0; i < LIMITS; i++)
		bpf_probe_read_kernel(&event->limits[i], 8,
				      (void *)BPF_CORE_READ(task, signal) +
					      bpf_core_field_offset(struct signal_struct, rlim) +
					      i * sizeof(struct rlimit));
	return 0;
}

static __always_inline struct event *reserve(void)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(struct event), 0);

	if (!event) {
		lose();
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	return event;
}

static __noinline int send_refusal(struct task_struct *task, struct key *key, struct thread *thread,
				   struct pt_regs *regs)
{
	struct operands operands;
	struct event *event;
	struct file *file;
	struct dentry *dentry;
	u64 address, size;
	long length = 0;

	if (!task || !key || !thread || !regs)
		return 1;
	event = reserve();
	if (!event)
		return 1;
	event->kind = REFUSAL;
	event->flags = key->flags;
	event->number = key->number;
	event->error = key->error;
	event->refused = thread->refused;
	event->level = thread->level;
	__builtin_memcpy(event->program, thread->program, NAME_SIZE);
	describe(event, task);
	if (key->flags & COMPAT) {
		event->args[0] = (u32)BPF_CORE_READ(regs, bx);
		event->args[1] = (u32)BPF_CORE_READ(regs, cx);
		event->args[2] = (u32)BPF_CORE_READ(regs, dx);
		event->args[3] = (u32)BPF_CORE_READ(regs, si);
		event->args[4] = (u32)BPF_CORE_READ(regs, di);
		event->args[5] = (u32)BPF_CORE_READ(regs, bp);
		bpf_ringbuf_submit(event, 0);
		return 0;
	}
	event->args[0] = BPF_CORE_READ(regs, di);
	event->args[1] = BPF_CORE_READ(regs, si);
	event->args[2] = BPF_CORE_READ(regs, dx);
	event->args[3] = BPF_CORE_READ(regs, r10);
	event->args[4] = BPF_CORE_READ(regs, r8);
	event->args[5] = BPF_CORE_READ(regs, r9);
	operands = operands_of(key->number & ~X32_BIT);
	switch (operands.index) {
	case 0: address = event->args[0]; break;
	case 1: address = event->args[1]; break;
	case 2: address = event->args[2]; break;
	default: address = event->args[4];
	}
	if (operands.kind == PATH) {
		length = bpf_probe_read_user_str(event->text, TEXT_SIZE, (void *)address);
		event->size = length > 0 ? length - 1 : 0;
	} else if (operands.kind == ADDRESS) {
		size = operands.index == 1 ? event->args[2] : event->args[5];
		if (size > 128)
			size = 128;
		if (!bpf_probe_read_user(event->text, size, (void *)address))
			event->size = size;
	} else if (operands.kind == DESCRIPTOR) {
		file = file_of(task, address);
		if (file) {
			dentry = BPF_CORE_READ(file, f_path.dentry);
			event->device = BPF_CORE_READ(dentry, d_sb, s_dev);
			bpf_probe_read_kernel_str(event->filesystem, sizeof(event->filesystem),
						  BPF_CORE_READ(dentry, d_sb, s_type, name));
			length = bpf_probe_read_kernel_str(event->text, TEXT_SIZE,
							   BPF_CORE_READ(dentry, d_name.name));
			event->size = length > 0 ? length - 1 : 0;
		}
	}
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Return whether a path is below /proc or /sys. */
static __always_inline int is_kernel_path(const char *text)
{
	return (text[0] == '/' && text[1] == 'p' && text[2] == 'r' && text[3] == 'o' &&
		text[4] == 'c' && text[5] == '/') ||
	       (text[0] == '/' && text[1] == 's' && text[2] == 'y' && text[3] == 's' &&
		text[4] == '/');
}

/* A masked file is a bind mount of a device of the host, /dev/null. */
static __always_inline int is_masked(struct task_struct *task, u32 descriptor)
{
	struct dentry *dentry = BPF_CORE_READ(file_of(task, descriptor), f_path.dentry);
	char name[8] = {};

	bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(dentry, d_name.name));
	return name[0] == 'n' && name[1] == 'u' && name[2] == 'l' && name[3] == 'l' && !name[4];
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct thread *thread = thread_of(task);
	struct value first = { .count = 1 }, *value;
	struct operands operands = {};
	struct key key = {};
	u32 error = 0;

	if (!thread)
		return 0;
	key.number = regs->orig_ax;
	if (task->thread_info.status & TS_COMPAT)
		key.flags |= COMPAT;
	if (!thread->entered)
		key.flags |= NO_ENTRY;
	thread->entered = 0;
	if (key.number == (u32)-1)
		return 0;
	if (result < 0 && result >= -MAX_ERRNO)
		error = -result;
	if (key.flags & COMPAT) {
		if (error != 1 && error != 13 && error != 38 && error != 30 && error != 97)
			return 0;
	} else if (error) {
		if (!is_refusal(key.number & ~X32_BIT, error) && !(key.flags & NO_ENTRY))
			return 0;
	} else {
		/*
		 * rtnetlink and nftables answer with a message, so the call itself succeeds. So does
		 * the open of a masked file. A program that is found ends the search of PATH.
		 */
		if (key.number == 44 || key.number == 46) {
			if (!thread->refused)
				return 0;
		} else if (key.number == 257 || key.number == 2) {
			if (!is_masked(task, result))
				return 0;
		} else if (key.number != 59 && key.number != 322) {
			return 0;
		}
		key.flags |= RESULT_OK;
	}
	key.error = error;
	key.refused = thread->refused;
	bpf_get_current_comm(key.name, sizeof(key.name));
	if (!(key.flags & COMPAT)) {
		operands = operands_of(key.number & ~X32_BIT);
		if (operands.kind == PATH)
			bpf_probe_read_user_str(key.text, KEY_TEXT,
						(void *)(operands.index == 0 ? regs->di :
							 operands.index == 1 ? regs->si :
									       regs->dx));
		else if (operands.kind == ADDRESS)
			bpf_probe_read_user(key.text, 16,
					    (void *)(operands.index == 1 ? regs->si : regs->r8));
		else if (operands.kind == DESCRIPTOR)
			key.args[0] = operands.index ? regs->r8 : regs->di;
		else if (operands.kind == NUMBERS) {
			key.args[0] = regs->di;
			key.args[1] = key.number == 56 || key.number == 272 ? 0 : (u32)regs->si;
		}
		if (key.number == 16)
			key.args[1] = (u32)regs->si;
	}
	if ((key.number == 257 || key.number == 2) && (error == 2 || key.flags & RESULT_OK) &&
	    !is_kernel_path(key.text))
		return 0;
	if ((key.number == 59 || key.number == 322) && key.flags & RESULT_OK)
		__builtin_memcpy(key.text, thread->program, KEY_TEXT);
	value = bpf_map_lookup_elem(&refusals, &key);
	if (!value) {
		if (bpf_map_update_elem(&refusals, &key, &first, BPF_NOEXIST)) {
			lose();
			return 0;
		}
		value = bpf_map_lookup_elem(&refusals, &key);
		if (!value)
			return 0;
	} else {
		__sync_fetch_and_add(&value->count, 1);
	}
	if (!value->sent && !send_refusal(task, &key, thread, regs))
		value->sent = 1;
	return 0;
}

/* Linux 6.14. Checks of other credentials, as overlayfs makes them, are not those of the process. */
SEC("?tp_btf/cap_capable")
int BPF_PROG(capable, const struct cred *cred, struct user_namespace *target,
	     const struct user_namespace *capable_namespace, int capability, int result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct thread *thread = thread_of(task);

	if (!thread || !result || cred != task->real_cred)
		return 0;
	thread->refused |= 1ull << (capability & 63);
	thread->level = BPF_CORE_READ(target, level);
	return 0;
}

/* --- connections -------------------------------------------------------------------------------- */

#define CONNECT 42
#define ETIMEDOUT 110
#define IPPROTO_TCP 6
#define TCP_SYN_SENT 2
#define TCP_CLOSE 7
#define AF_INET6 10

/*
 * A connection that does not wait returns EINPROGRESS, and fails later. When it ends before it was
 * established, its error is that of connect(2); none means that the program gave up.
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(socket_state, struct sock *sock, int old_state, int new_state)
{
	struct value first = { .count = 1 }, *value;
	struct task_struct *task;
	struct thread *thread;
	struct event *event;
	struct key key = {};
	u16 family;

	if (sock->sk_protocol != IPPROTO_TCP || old_state != TCP_SYN_SENT || new_state != TCP_CLOSE)
		return 0;
	task = bpf_get_current_task_btf();
	thread = thread_of(task);
	if (!thread || (thread->entered && thread->number == CONNECT))
		return 0;
	family = BPF_CORE_READ(sock, __sk_common.skc_family);
	key.number = CONNECT;
	key.error = BPF_CORE_READ(sock, sk_err);
	if (!key.error)
		key.error = ETIMEDOUT;
	bpf_get_current_comm(key.name, sizeof(key.name));
	*(u16 *)&key.text[0] = family;
	*(u16 *)&key.text[2] = BPF_CORE_READ(sock, __sk_common.skc_dport);
	if (family == AF_INET6)
		bpf_core_read(&key.text[8], 16, &sock->__sk_common.skc_v6_daddr);
	else
		*(u32 *)&key.text[4] = BPF_CORE_READ(sock, __sk_common.skc_daddr);
	value = bpf_map_lookup_elem(&refusals, &key);
	if (value) {
		__sync_fetch_and_add(&value->count, 1);
		return 0;
	}
	first.sent = 1;
	event = reserve();
	if (!event)
		return 0;
	bpf_map_update_elem(&refusals, &key, &first, BPF_NOEXIST);
	event->kind = REFUSAL;
	event->number = CONNECT;
	event->error = key.error;
	__builtin_memcpy(event->program, thread->program, NAME_SIZE);
	describe(event, task);
	__builtin_memcpy(event->text, key.text, 28);
	event->size = family == AF_INET6 ? 28 : 16;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* --- ends --------------------------------------------------------------------------------------- */

SEC("tp_btf/signal_generate")
int BPF_PROG(signal_generate, int number, struct kernel_siginfo *info, struct task_struct *receiver,
	     int group, int result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct thread *thread = thread_of(receiver);
	struct event *event;

	/* ILL, TRAP, ABRT, BUS, FPE, KILL, SEGV, TERM, XCPU, XFSZ, SYS */
	if (!thread || number > 31 || !((1u << number) & 0x8300abf0))
		return 0;
	event = reserve();
	if (!event)
		return 0;
	event->kind = SIGNAL;
	event->number = number;
	__builtin_memcpy(event->program, thread->program, NAME_SIZE);
	describe(event, receiver);
	bpf_probe_read_kernel_str(event->text, 16,
				  (void *)receiver + bpf_core_field_offset(struct task_struct, comm));
	event->size = 16;
	/* SEND_SIG_NOINFO and SEND_SIG_PRIV are 0 and 1; SI_KERNEL is 128. */
	event->error = (u64)info > 1 ? BPF_CORE_READ(info, si_code) : (u64)info == 1 ? 128 : 0;
	event->other = BPF_CORE_READ(task, tgid);
	bpf_get_current_comm(event->name, sizeof(event->name));
	if (thread_of(task))
		event->flags |= INSIDE;
	/* The filter of a call kills before its entry: the registers are those of the call. */
	if (number == 31) {
		struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

		event->args[0] = (u32)BPF_CORE_READ(regs, orig_ax);
	}
	bpf_ringbuf_submit(event, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	struct thread *thread = thread_of(task);
	struct event *event;
	u32 status;
	u64 pages;

	if (!thread || task->pid != task->tgid)
		return 0;
	status = BPF_CORE_READ(task, signal, group_exit_code);
	if (!status)
		status = task->exit_code;
	pages = BPF_CORE_READ(task, signal, maxrss);
	if (!(status & 0x7f) && pages < 4096)
		return 0;
	event = reserve();
	if (!event)
		return 0;
	event->kind = EXIT;
	__builtin_memcpy(event->program, thread->program, NAME_SIZE);
	describe(event, task);
	event->error = status;
	event->args[0] = pages;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Linux 6.9: the victim is a task. */
SEC("?tp_btf/mark_victim")
int BPF_PROG(victim, struct task_struct *task, unsigned int uid)
{
	struct thread *thread = thread_of(task);
	struct event *event;

	if (!thread)
		return 0;
	event = reserve();
	if (!event)
		return 0;
	event->kind = OOM;
	__builtin_memcpy(event->program, thread->program, NAME_SIZE);
	describe(event, task);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
