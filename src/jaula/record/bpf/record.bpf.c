// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * Programs of the recorder: they count what the processes of one container do.
 *
 * They are attached to raw tracepoints with BTF, which can neither refuse nor change an operation.
 * `scripts/bpf` compiles this file for x86-64. Structures have only the members in use; libbpf
 * relocates them to the running kernel. Linux 6.1 has all that is not optional.
 *
 * Facts about the kernel:
 *
 * - A process cannot change its parentage. The mark of a process is inherited at a fork, so a
 *   process that leaves the cgroup stays recorded.
 * - A tracepoint can be hit by two processes on one processor, if the first one is preempted. A
 *   buffer for each processor would be overwritten, so a buffer is claimed (`claim`).
 * - bpf_d_path() is not available to tracepoints. `walk` reads the same structures.
 * - Registers keep the arguments of a system call until its exit. The memory that they point to may
 *   have been changed by another thread.
 */

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define EEXIST 17
#define ENOTSOCK 88
#define EBADF 9
#define MAX_ERRNO 4095
#define FMODE_PATH 0x4000
#define TS_COMPAT 2
#define X32_BIT 0x40000000
#define AF_INET 2
#define AF_INET6 10
#define TCP_SYN_SENT 2
#define TCP_LISTEN 10
#define IPPROTO_TCP 6

#define PATH_SIZE 4096 /* bytes, PATH_MAX */
#define NAME_SIZE 256  /* bytes of the name in execve(2), and of a component of a path */
#define TEXT_SIZE (PATH_SIZE + NAME_SIZE)
#define ADDRESS_SIZE 128 /* bytes, sizeof(struct sockaddr_storage) */
#define SLOTS 256
#define LEVELS 32 /* depth of cgroups that is searched */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define RELOCATED __attribute__((preserve_access_index))

struct qstr {
	u32 len;
	const u8 *name;
} RELOCATED;

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
} RELOCATED;

struct vfsmount {
	struct dentry *mnt_root;
} RELOCATED;

struct mnt_namespace;

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct mnt_namespace *mnt_ns;
} RELOCATED;

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
} RELOCATED;

struct file {
	struct path f_path;
	u32 f_mode;
	u32 f_flags;
	void *private_data;
} RELOCATED;

struct fdtable {
	u32 max_fds;
	struct file **fd;
} RELOCATED;

struct files_struct {
	struct fdtable *fdt;
} RELOCATED;

struct mm_struct {
	struct file *exe_file;
} RELOCATED;

struct linux_binprm {
	const char *filename;
} RELOCATED;

struct kernfs_node {
	u64 id;
} RELOCATED;

struct cgroup {
	int level;
	struct kernfs_node *kn;
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

struct cred;

struct task_struct {
	struct thread_info thread_info;
	struct task_struct *group_leader;
	const struct cred *real_cred;
	struct css_set *cgroups;
	struct files_struct *files;
	struct mm_struct *mm;
} RELOCATED;

struct pt_regs {
	unsigned long r10, r9, r8, dx, si, di, cx, bx, orig_ax;
} RELOCATED;

struct user_namespace {
	int level;
} RELOCATED;

struct in6_addr {
	u8 bytes[16];
};

struct sock_common {
	u32 skc_daddr, skc_rcv_saddr;
	u16 skc_dport, skc_num, skc_family;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
} RELOCATED;

struct sock {
	struct sock_common __sk_common;
	u16 sk_protocol;
} RELOCATED;

struct socket {
	struct sock *sk;
} RELOCATED;

struct user_msghdr { /* include/linux/socket.h */
	void *msg_name;
	int msg_namelen;
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

/* --- the values that the recorder sets and reads ------------------------------------------------ */

enum hierarchy { UNIFIED, PIDS, MEMORY, DEVICES, FREEZER, CPU };

const volatile struct {
	u64 cgroup;      /* id of the container's cgroup */
	u64 hash_key[2]; /* random: a container cannot compute two paths with one hash */
	u32 hierarchy;   /* enum hierarchy, the one that `cgroup` belongs to */
	u32 pad;
} config SEC(".rodata.config");

/* PROGRAM gives a number in `subject` its path; it is not an entry of the record. */
enum kind {
	SYSCALL, PROGRAM, EXEC, FILE_OPEN, OPEN_REFUSED, SOCKET, ADDRESS, CAPABILITY, SIGNAL, MOUNT,
	KINDS,
};

/* LISTEN and TCP_CONNECT are read from the kernel's socket, the others from the process. */
enum mount_use { MOUNT_NEW, MOUNT_MOVE, UNMOUNT };

enum address_use { CONNECT, BIND, SEND, TCP_CONNECT, LISTEN };

#define UNKNOWN_PROGRAM 0  /* a kernel thread, or a process whose program was not read yet */
#define UNLISTED_PROGRAM 1 /* the table of programs is full */

/* Bits of `detail` of a file: the low two are FMODE_READ and FMODE_WRITE. */
#define OPENED_PATH 4 /* by O_PATH: neither read nor written */
#define OPEN_CREAT 8
#define OPEN_TRUNC 16
#define OPEN_APPEND 32
/* Bits of `detail` of a file or program. */
#define PATH_TRUNCATED 64
#define PATH_DETACHED 128 /* the mount is in no namespace */

#define CAPABILITY_REFUSED 256 /* bit of `detail` */
#define SI_USER 0              /* include/uapi/asm-generic/siginfo.h */
#define SI_QUEUE -1
#define SI_TKILL -6
#define OUTSIDE 256            /* bit of `detail` of a signal: the receiver is not in the container */

struct key {
	u64 program;
	u64 subject;
	u32 kind;
	u32 detail;
};

struct value {
	u64 count;
	u64 first; /* nanoseconds since boot */
	u64 last;
	u64 sent; /* the recorder has the event of the first occurrence */
};

struct event {
	struct key key;
	u64 time;
	u32 size;
	u32 pad;
	u8 data[TEXT_SIZE];
};

struct slot {
	u32 busy;
	u32 pad;
	struct event event;
};

struct losses {
	u64 occurrences; /* not counted in any entry, since the table of the kind was full */
	u64 events;      /* the ring buffer was full; the next occurrence is sent again */
	u64 texts;       /* no buffer was free, or memory of the process could not be read */
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} events SEC(".maps");

#define TABLE(name, size)                      \
	struct {                               \
		__uint(type, BPF_MAP_TYPE_HASH); \
		__uint(max_entries, size);     \
		__type(key, struct key);       \
		__type(value, struct value);   \
	} name SEC(".maps")

TABLE(syscalls, 65536);
TABLE(programs, 4096);
TABLE(execs, 16384);
TABLE(files, 65536);
TABLE(refused_files, 16384);
TABLE(sockets, 8192);
TABLE(capabilities, 8192);
TABLE(signals, 8192);
TABLE(mounts, 4096);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KINDS);
	__type(key, u32);
	__type(value, struct losses);
} losses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, u32);
	__type(value, struct slot);
} slots SEC(".maps");

struct process {
	u64 program;
};

/*
 * Threads of the container. The leader of a thread group has the program of the process. A thread
 * that executes a program becomes the leader, so each one is marked.
 */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct process);
} processes SEC(".maps");

/* --- membership --------------------------------------------------------------------------------- */

static __always_inline struct cgroup *cgroup_of(struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state *state = 0;
	u32 subsystem;

	switch (config.hierarchy) {
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

/* Return whether the cgroup of a task is the container's or is below it. */
static __noinline int in_container(struct task_struct *task)
{
	struct cgroup *cgroup = cgroup_of(task), *ancestor;
	int level = BPF_CORE_READ(cgroup, level);

	for (int i = 0; i < LEVELS; i++) {
		if (i > level)
			break;
		ancestor = 0;
		bpf_probe_read_kernel(&ancestor, sizeof(ancestor),
				      (void *)cgroup +
					      bpf_core_field_offset(struct cgroup, ancestors) +
					      i * sizeof(void *));
		if (BPF_CORE_READ(ancestor, kn, id) == config.cgroup)
			return 1;
	}
	return 0;
}

static __always_inline void lose(u32 kind, u32 reason)
{
	struct losses *loss = bpf_map_lookup_elem(&losses, &kind);

	if (!loss)
		return;
	if (reason == 0)
		__sync_fetch_and_add(&loss->occurrences, 1);
	else if (reason == 1)
		__sync_fetch_and_add(&loss->events, 1);
	else
		__sync_fetch_and_add(&loss->texts, 1);
}

static __always_inline struct process *process_of(struct task_struct *leader)
{
	return bpf_task_storage_get(&processes, leader, 0, 0);
}

static __always_inline struct process *mark(struct task_struct *leader, u64 program)
{
	struct process process = { .program = program };
	struct process *stored = bpf_task_storage_get(&processes, leader, &process,
						      BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!stored)
		lose(EXEC, 2);
	return stored;
}

/* --- entries ------------------------------------------------------------------------------------ */

/* Return a free buffer, or null. `release` has to follow. */
static __always_inline struct slot *claim(void)
{
	u32 first = bpf_get_smp_processor_id() * 4;

	for (u32 i = 0; i < 8; i++) {
		u32 index = (first + i) % SLOTS;
		struct slot *slot = bpf_map_lookup_elem(&slots, &index);

		if (slot && !__sync_val_compare_and_swap(&slot->busy, 0, 1))
			return slot;
	}
	return 0;
}

static __always_inline void release(struct slot *slot)
{
	__sync_val_compare_and_swap(&slot->busy, 1, 0);
}

#define ROTATE(x, n) (((x) << (n)) | ((x) >> (64 - (n))))
#define SIPROUND                                                   \
	do {                                                       \
		v0 += v1; v1 = ROTATE(v1, 13); v1 ^= v0; v0 = ROTATE(v0, 32); \
		v2 += v3; v3 = ROTATE(v3, 16); v3 ^= v2;           \
		v0 += v3; v3 = ROTATE(v3, 21); v3 ^= v0;           \
		v2 += v1; v1 = ROTATE(v1, 17); v1 ^= v2; v2 = ROTATE(v2, 32); \
	} while (0)

/* Return SipHash-1-3 of the first `size` bytes of a buffer. */
static __noinline u64 siphash(struct slot *slot, u32 size)
{
	u64 v0 = config.hash_key[0] ^ 0x736f6d6570736575ull;
	u64 v1 = config.hash_key[1] ^ 0x646f72616e646f6dull;
	u64 v2 = config.hash_key[0] ^ 0x6c7967656e657261ull;
	u64 v3 = config.hash_key[1] ^ 0x7465646279746573ull;
	u64 *words = (u64 *)slot->event.data;
	u64 word = 0;
	u32 whole = size / 8;

	for (u32 i = 0; i < TEXT_SIZE / 8; i++) {
		if (i >= whole)
			break;
		word = words[i];
		v3 ^= word;
		SIPROUND;
		v0 ^= word;
	}
	word = 0;
	if (whole < TEXT_SIZE / 8 && size % 8)
		word = words[whole] & ((1ull << (8 * (size % 8))) - 1);
	word |= (u64)size << 56;
	v3 ^= word;
	SIPROUND;
	v0 ^= word;
	v2 ^= 0xff;
	SIPROUND;
	SIPROUND;
	SIPROUND;
	return v0 ^ v1 ^ v2 ^ v3;
}

/*
 * Count one occurrence. Returns the entry if its event has to be sent, with `*time` set, or null.
 */
static __always_inline struct value *count(void *table, struct key *key, u64 *time, int *full)
{
	struct value first = {}, *value;

	*full = 0;
	*time = bpf_ktime_get_boot_ns();
	value = bpf_map_lookup_elem(table, key);
	if (!value) {
		first.first = first.last = *time;
		if (bpf_map_update_elem(table, key, &first, BPF_NOEXIST) == -EEXIST)
			*time = bpf_ktime_get_boot_ns();
		value = bpf_map_lookup_elem(table, key);
		if (!value) {
			lose(key->kind, 0);
			*full = 1;
			return 0;
		}
	}
	__sync_fetch_and_add(&value->count, 1);
	value->last = *time;
	return value->sent ? 0 : value;
}

/* Count an occurrence of what `key` describes completely. */
static __always_inline void note(void *table, struct key *key)
{
	struct {
		struct key key;
		u64 time;
		u64 size;
	} event = {};
	struct value *value;
	int full;

	value = count(table, key, &event.time, &full);
	if (!value)
		return;
	event.key = *key;
	if (bpf_ringbuf_output(&events, &event, sizeof(event), 0))
		lose(key->kind, 1);
	else
		value->sent = 1;
}

/* Count an occurrence of the text in a buffer. Returns 0 unless the table is full. */
static __always_inline int note_text(void *table, struct key *key, struct slot *slot, u32 size)
{
	struct value *value;
	u32 total;
	u64 time;
	int full;

	value = count(table, key, &time, &full);
	if (!value)
		return full;
	slot->event.key = *key;
	slot->event.time = time;
	slot->event.size = size;
	total = __builtin_offsetof(struct event, data) + size;
	if (total > sizeof(struct event))
		total = sizeof(struct event);
	if (bpf_ringbuf_output(&events, &slot->event, total, 0))
		lose(key->kind, 1);
	else
		value->sent = 1;
	return 0;
}

/* --- paths -------------------------------------------------------------------------------------- */

struct walk {
	struct slot *slot;
	struct dentry *dentry;
	struct mount *mount;
	u32 size;
	u32 flags;
};

/* Append one component and its zero byte; the last component of the path comes first. */
static long step(u32 index, struct walk *walk)
{
	struct dentry *dentry = walk->dentry, *parent;
	struct mount *mount = walk->mount, *above;
	u64 namespace;
	u32 size;

	if (dentry == BPF_CORE_READ(mount, mnt.mnt_root)) {
		above = BPF_CORE_READ(mount, mnt_parent);
		if (above == mount) {
			namespace = (u64)BPF_CORE_READ(mount, mnt_ns);
			if (!namespace || namespace >= (u64)-MAX_ERRNO)
				walk->flags |= PATH_DETACHED;
			return 1;
		}
		walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		walk->mount = above;
		return 0;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	if (parent == dentry) {
		walk->flags |= PATH_DETACHED;
		return 1;
	}
	size = BPF_CORE_READ(dentry, d_name.len) & (NAME_SIZE - 1);
	if (walk->size + size >= PATH_SIZE) {
		walk->flags |= PATH_TRUNCATED;
		return 1;
	}
	if (bpf_probe_read_kernel(&walk->slot->event.data[walk->size & (PATH_SIZE - 1)], size,
				  BPF_CORE_READ(dentry, d_name.name))) {
		walk->flags |= PATH_TRUNCATED;
		return 1;
	}
	walk->size += size;
	walk->slot->event.data[walk->size & (PATH_SIZE - 1)] = 0;
	walk->size++;
	walk->dentry = parent;
	return 0;
}

/*
 * Append the path of a file to the `size` bytes of a buffer, up to the root of its mount namespace:
 * chroot(2) does not shorten it. Returns the new size; `*flags` are bits of `detail`.
 */
static __noinline u32 path_of(struct slot *slot, struct file *file, u32 size, u32 *flags)
{
	struct walk walk = { .slot = slot, .size = size };
	struct vfsmount *mount = BPF_CORE_READ(file, f_path.mnt);

	if (!slot || !flags)
		return 0;
	walk.dentry = BPF_CORE_READ(file, f_path.dentry);
	walk.mount = (void *)mount - bpf_core_field_offset(struct mount, mnt);
	bpf_loop(PATH_SIZE, step, &walk, 0);
	*flags = walk.flags;
	return walk.size;
}

/* --- processes ---------------------------------------------------------------------------------- */

/*
 * Read the program of the current task from the kernel, and register it. `name` is the name in
 * execve(2), null if it is not known. Returns the number of the program.
 */
static __noinline u64 read_program(struct task_struct *task, const char *name)
{
	struct file *file = BPF_CORE_READ(task, mm, exe_file);
	struct key key = { .kind = PROGRAM };
	u64 program = UNLISTED_PROGRAM;
	struct slot *slot;
	long length = 0;
	u32 size;

	if (!file)
		return UNKNOWN_PROGRAM;
	slot = claim();
	if (!slot) {
		lose(PROGRAM, 2);
		return UNLISTED_PROGRAM;
	}
	if (name)
		length = bpf_probe_read_kernel_str(slot->event.data, NAME_SIZE, name);
	if (length <= 0 || length > NAME_SIZE) {
		slot->event.data[0] = 0;
		length = 1;
	}
	size = path_of(slot, file, length, &key.detail);
	if (size > TEXT_SIZE)
		size = TEXT_SIZE;
	key.subject = siphash(slot, size) | (1ull << 63);
	if (!note_text(&programs, &key, slot, size))
		program = key.subject;
	release(slot);
	return program;
}

/* Return the program of the current process; one that is older than the record is read now. */
static __always_inline u64 program_of(struct task_struct *current, struct process *process)
{
	if (!process->program)
		process->program = read_program(current, 0);
	return process->program;
}

/* Run once, after the other programs are attached: mark the threads that exist. */
SEC("iter/task")
int mark_processes(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;

	if (task && in_container(task))
		mark(task, UNKNOWN_PROGRAM);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(fork, struct task_struct *parent, struct task_struct *child)
{
	struct process *process = process_of(parent->group_leader);

	if (process)
		mark(child, program_of(parent, process));
	return 0;
}

/* A process that enters the container from outside is recorded from its first program on. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct process *process = process_of(task->group_leader);
	struct key key = { .kind = EXEC };

	if (!process) {
		if (!in_container(task))
			return 0;
		process = mark(task->group_leader, UNKNOWN_PROGRAM);
		if (!process)
			return 0;
	}
	key.program = process->program;
	process->program = read_program(task, BPF_CORE_READ(bprm, filename));
	key.subject = process->program;
	note(&execs, &key);
	return 0;
}

/* --- system calls ------------------------------------------------------------------------------- */

static __always_inline struct file *file_of(struct task_struct *task, u32 descriptor)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file *file = 0;

	if (descriptor < BPF_CORE_READ(table, max_fds))
		bpf_probe_read_kernel(&file, sizeof(file),
				      BPF_CORE_READ(table, fd) + descriptor);
	return file;
}

static __noinline int note_open(struct task_struct *task, u64 program, u32 descriptor, u32 flags)
{
	struct key key = { .program = program, .kind = FILE_OPEN };
	struct file *file = file_of(task, descriptor);
	struct slot *slot;
	u32 size, mode, path_flags = 0;

	if (!file) {
		lose(FILE_OPEN, 2); /* another thread has closed it */
		return 0;
	}
	slot = claim();
	if (!slot) {
		lose(FILE_OPEN, 2);
		return 0;
	}
	size = path_of(slot, file, 0, &path_flags);
	if (size > PATH_SIZE)
		size = PATH_SIZE;
	mode = BPF_CORE_READ(file, f_mode);
	key.detail = (mode & 3) | (mode & FMODE_PATH ? OPENED_PATH : 0) | flags | path_flags;
	key.subject = siphash(slot, size);
	note_text(&files, &key, slot, size);
	release(slot);
	return 0;
}

static __noinline int note_open_refused(u64 program, u64 path, u32 error)
{
	struct key key = { .program = program, .kind = OPEN_REFUSED, .detail = error };
	struct slot *slot = claim();
	long size;

	if (!slot) {
		lose(OPEN_REFUSED, 2);
		return 0;
	}
	size = bpf_probe_read_user_str(slot->event.data, PATH_SIZE, (void *)path);
	if (size <= 0 || size > PATH_SIZE) {
		lose(OPEN_REFUSED, 2);
	} else {
		size--; /* the zero byte */
		key.subject = siphash(slot, size);
		note_text(&refused_files, &key, slot, size);
	}
	release(slot);
	return 0;
}

static __always_inline u32 open_flags(u64 flags)
{
	return (flags & 0100 ? OPEN_CREAT : 0) | (flags & 01000 ? OPEN_TRUNC : 0) |
	       (flags & 02000 ? OPEN_APPEND : 0);
}

/* Note the address of connect, bind or send, as it is in the memory of the process. */
static __noinline int note_address(u64 program, u32 descriptor, u64 address, u32 length, u32 detail)
{
	struct key key = { .program = program, .kind = ADDRESS };
	struct slot *slot;
	struct socket *socket;
	u32 size = length > ADDRESS_SIZE ? ADDRESS_SIZE : length;

	if (!address || !size)
		return 0;
	slot = claim();
	if (!slot) {
		lose(ADDRESS, 2);
		return 0;
	}
	socket = BPF_CORE_READ(file_of(bpf_get_current_task_btf(), descriptor), private_data);
	key.detail = detail | BPF_CORE_READ(socket, sk, sk_protocol) << 16;
	asm volatile("%0 &= 255" : "+r"(size)); /* the verifier does not keep the bound */
	if (bpf_probe_read_user(slot->event.data, size, (void *)address)) {
		lose(ADDRESS, 2);
	} else {
		key.subject = siphash(slot, size);
		note_text(&sockets, &key, slot, size);
	}
	release(slot);
	return 0;
}

#define MOUNT_TARGET_SIZE 2048 /* bytes */
#define MOUNT_WORD_SIZE 256

/* Append a string of the process and its zero byte, an empty one if there is none. */
static __always_inline u32 append(struct slot *slot, u32 size, u64 address)
{
	long length = 0;

	size &= PATH_SIZE - 1;
	if (address)
		length = bpf_probe_read_user_str(&slot->event.data[size], MOUNT_WORD_SIZE,
						 (void *)address);
	if (length <= 0 || length > MOUNT_WORD_SIZE) {
		slot->event.data[size] = 0;
		length = 1;
	}
	return size + length;
}

/* Note target, type and source of a mount, as they are in the memory of the process. */
static __noinline int note_mount(u64 program, u64 target, u64 type, u64 source, u32 use_and_error)
{
	struct key key = { .program = program, .kind = MOUNT, .detail = use_and_error };
	struct slot *slot = claim();
	long length;
	u32 size;

	if (!slot) {
		lose(MOUNT, 2);
		return 0;
	}
	length = bpf_probe_read_user_str(slot->event.data, MOUNT_TARGET_SIZE, (void *)target);
	if (length <= 0 || length > MOUNT_TARGET_SIZE) {
		lose(MOUNT, 2);
	} else {
		size = append(slot, length, type);
		size = append(slot, size, source);
		key.subject = siphash(slot, size);
		note_text(&mounts, &key, slot, size);
	}
	release(slot);
	return 0;
}

static __always_inline void note_socket(u64 program, u64 family, u64 type, u64 protocol, u32 error)
{
	struct key key = { .program = program, .kind = SOCKET, .detail = error };

	key.subject = (family & 0xffff) << 40 | (type & 15) << 32 | (u32)protocol;
	note(&sockets, &key);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct process *process = process_of(task->group_leader);
	struct key key = { .kind = SYSCALL };
	struct user_msghdr message = {};
	u32 number, error = 0;
	u64 program;

	if (!process)
		return 0;
	program = program_of(task, process);
	number = regs->orig_ax;
	/* -1: rt_sigreturn(2), which has no result of its own */
	if (result < 0 && result >= -MAX_ERRNO && number != (u32)-1)
		error = -result;
	key.program = program;
	key.subject = number;
	key.detail = error;
	if (task->thread_info.status & TS_COMPAT) {
		key.subject |= 1ull << 32;
		note(&syscalls, &key);
		switch (number) { /* arch/x86/entry/syscalls/syscall_32.tbl */
		case 5: /* open */
			if (error)
				note_open_refused(program, (u32)regs->bx, error);
			else
				note_open(task, program, result, open_flags(regs->cx));
			return 0;
		case 8: /* creat */
			if (error)
				note_open_refused(program, (u32)regs->bx, error);
			else
				note_open(task, program, result, OPEN_CREAT | OPEN_TRUNC);
			return 0;
		case 295: /* openat */
		case 437: /* openat2 */
			if (error)
				note_open_refused(program, (u32)regs->cx, error);
			else
				note_open(task, program, result,
					  number == 295 ? open_flags(regs->dx) : 0);
			return 0;
		case 342: /* open_by_handle_at */
			if (!error)
				note_open(task, program, result, 0);
			return 0;
		case 359: /* socket */
			note_socket(program, regs->bx, regs->cx, regs->dx, error);
			return 0;
		}
		return 0;
	}
	note(&syscalls, &key);
	switch (number & ~X32_BIT) { /* arch/x86/entry/syscalls/syscall_64.tbl */
	case 2: /* open */
		if (error)
			note_open_refused(program, regs->di, error);
		else
			note_open(task, program, result, open_flags(regs->si));
		return 0;
	case 85: /* creat */
		if (error)
			note_open_refused(program, regs->di, error);
		else
			note_open(task, program, result, OPEN_CREAT | OPEN_TRUNC);
		return 0;
	case 257: /* openat */
	case 437: /* openat2 */
		if (error)
			note_open_refused(program, regs->si, error);
		else
			note_open(task, program, result,
				  (number & ~X32_BIT) == 257 ? open_flags(regs->dx) : 0);
		return 0;
	case 304: /* open_by_handle_at */
		if (!error)
			note_open(task, program, result, 0);
		return 0;
	case 41: /* socket */
		note_socket(program, regs->di, regs->si, regs->dx, error);
		return 0;
	case 42: /* connect */
	case 49: /* bind */
		if (error != EBADF && error != ENOTSOCK)
			note_address(program, regs->di, regs->si, regs->dx,
				     ((number & ~X32_BIT) == 49 ? BIND : CONNECT) << 12 | error);
		return 0;
	case 44: /* sendto */
		if (error != EBADF && error != ENOTSOCK)
			note_address(program, regs->di, regs->r8, regs->r9,
				     SEND << 12 | error);
		return 0;
	case 165: /* mount */
		note_mount(program, regs->si, regs->dx, regs->di, MOUNT_NEW << 12 | error);
		return 0;
	case 166: /* umount2 */
		note_mount(program, regs->di, 0, 0, UNMOUNT << 12 | error);
		return 0;
	case 429: /* move_mount */
		note_mount(program, regs->r10, 0, regs->si, MOUNT_MOVE << 12 | error);
		return 0;
	case 46: /* sendmsg */
		if (error == EBADF || error == ENOTSOCK)
			return 0;
		if (!bpf_probe_read_user(&message, sizeof(message), (void *)regs->si))
			note_address(program, regs->di, (u64)message.msg_name,
				     message.msg_namelen, SEND << 12);
		return 0;
	}
	return 0;
}

/* --- sockets ------------------------------------------------------------------------------------ */

/* In the context of connect(2) and listen(2): the addresses are those of the kernel's socket. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(socket_state, struct sock *sock, int old_state, int new_state)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct process *process;
	struct key key = { .kind = ADDRESS };
	struct slot *slot;
	u16 family, port;
	u32 size;

	if (sock->sk_protocol != IPPROTO_TCP || (new_state != TCP_SYN_SENT && new_state != TCP_LISTEN))
		return 0;
	process = process_of(task->group_leader);
	if (!process)
		return 0;
	key.program = program_of(task, process);
	key.detail = IPPROTO_TCP << 16 | (new_state == TCP_LISTEN ? LISTEN : TCP_CONNECT) << 12;
	slot = claim();
	if (!slot) {
		lose(ADDRESS, 2);
		return 0;
	}
	/* struct sockaddr_in or sockaddr_in6 */
	family = BPF_CORE_READ(sock, __sk_common.skc_family);
	if (new_state == TCP_LISTEN)
		port = __builtin_bswap16(BPF_CORE_READ(sock, __sk_common.skc_num));
	else
		port = BPF_CORE_READ(sock, __sk_common.skc_dport);
	*(u16 *)&slot->event.data[0] = family;
	*(u16 *)&slot->event.data[2] = port;
	if (family == AF_INET6) {
		size = 28;
		*(u32 *)&slot->event.data[4] = 0;
		*(u32 *)&slot->event.data[24] = 0;
		if (new_state == TCP_LISTEN)
			BPF_CORE_READ_INTO(&slot->event.data[8], sock, __sk_common.skc_v6_rcv_saddr);
		else
			BPF_CORE_READ_INTO(&slot->event.data[8], sock, __sk_common.skc_v6_daddr);
	} else {
		size = 16;
		*(u64 *)&slot->event.data[8] = 0;
		*(u32 *)&slot->event.data[4] =
			new_state == TCP_LISTEN ? BPF_CORE_READ(sock, __sk_common.skc_rcv_saddr) :
						  BPF_CORE_READ(sock, __sk_common.skc_daddr);
	}
	key.subject = siphash(slot, size);
	note_text(&sockets, &key, slot, size);
	release(slot);
	return 0;
}

/* --- capabilities ------------------------------------------------------------------------------- */

/*
 * Linux 6.14. The kernel also checks other credentials in the context of a process: overlayfs those
 * of the mount. They are not the capabilities of the process.
 */
SEC("?tp_btf/cap_capable")
int BPF_PROG(capable, const struct cred *cred, struct user_namespace *target,
	     const struct user_namespace *capable_namespace, int capability, int result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct process *process = process_of(task->group_leader);
	struct key key = { .kind = CAPABILITY };
	struct pt_regs *regs;

	if (!process || cred != task->real_cred)
		return 0;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	key.program = program_of(task, process);
	key.subject = (u32)BPF_CORE_READ(regs, orig_ax);
	if (task->thread_info.status & TS_COMPAT)
		key.subject |= 1ull << 32;
	key.detail = (capability & 0xff) | (result ? CAPABILITY_REFUSED : 0) |
		     (BPF_CORE_READ(target, level) & 0xff) << 16;
	note(&capabilities, &key);
	return 0;
}

/* --- signals ------------------------------------------------------------------------------------ */

SEC("tp_btf/signal_generate")
int BPF_PROG(signal_generate, int number, struct kernel_siginfo *info, struct task_struct *receiver,
	     int group, int result)
{
	struct task_struct *task = bpf_get_current_task_btf(), *leader = receiver->group_leader;
	struct process *process = process_of(task->group_leader), *other;
	struct key key = { .kind = SIGNAL };
	int code;

	/* SEND_SIG_NOINFO and SEND_SIG_PRIV are 0 and 1. */
	if (!process || leader == task->group_leader || (u64)info <= 1)
		return 0;
	/* Other codes are the kernel's own. A timer of any process may end while this one runs. */
	code = BPF_CORE_READ(info, si_code);
	if (code != SI_USER && code != SI_QUEUE && code != SI_TKILL)
		return 0;
	key.program = program_of(task, process);
	other = process_of(leader);
	if (other)
		key.subject = other->program;
	key.detail = (number & 0xff) | (other ? 0 : OUTSIDE);
	note(&signals, &key);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
