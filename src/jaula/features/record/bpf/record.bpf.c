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
 * - The verifier follows a static function at each call, and a global one once. So functions with
 *   loops are global.
 * - Registers keep the arguments of a system call until its exit. The memory that they point to may
 *   have been changed by another thread.
 */

#include "container.bpf.h"

#define EEXIST 17
#define ENOTSOCK 88
#define EBADF 9
#define EPERM 1
#define EACCES 13
#define FMODE_PATH 0x4000
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define TCP_SYN_SENT 2
#define TCP_LISTEN 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define DNS_PORT 53
#define S_IFMT 0170000
#define S_IFCHR 0020000
#define S_IFBLK 0060000

#define PATH_SIZE 4096 /* bytes, PATH_MAX */
#define NAME_SIZE 256  /* bytes of the name in execve(2), and of a component of a path */
#define TEXT_SIZE (PATH_SIZE + NAME_SIZE)
#define ADDRESS_SIZE 128 /* bytes, sizeof(struct sockaddr_storage) */
#define SLOTS 256
#define RECENT 32 /* system calls of a thread that it counts itself, a power of two */
#define MESSAGES 64 /* of one sendmmsg(2) that are read */
#define QUERY_SIZE 288 /* bytes of a DNS query that are read: header, name, type */
#define HEADER_SIZE 12 /* bytes of the header of a DNS query */
#define LABELS 128     /* of a name, at most */

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

struct inode {
	u16 i_mode;
	u32 i_rdev;
} RELOCATED;

struct file {
	struct path f_path;
	struct inode *f_inode;
	u32 f_mode;
	u32 f_flags;
	void *private_data;
} RELOCATED;

struct fs_struct {
	struct path pwd;
} RELOCATED;

struct mm_struct {
	struct file *exe_file;
} RELOCATED;

struct page_counter {
	unsigned long watermark, max;
} RELOCATED;

struct mem_cgroup {
	struct cgroup_subsys_state css;
	struct page_counter memory;
} RELOCATED;

typedef struct {
	long counter;
} RELOCATED atomic64_t;

struct pids_cgroup {
	struct cgroup_subsys_state css;
	atomic64_t limit;
	long watermark;
} RELOCATED;

struct cred;

struct task_struct {
	struct thread_info thread_info;
	struct task_struct *group_leader;
	const struct cred *real_cred;
	struct css_set *cgroups;
	struct files_struct *files;
	struct fs_struct *fs;
	struct mm_struct *mm;
	void *bpf_storage;
} RELOCATED;

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
	u64 msg_name;
	u32 msg_namelen;
	u32 pad;
	u64 msg_iov;
	u64 msg_iovlen;
	u64 rest[3];
};

struct compat_msghdr { /* include/net/compat.h */
	u32 msg_name, msg_namelen, msg_iov, msg_iovlen, rest[3];
};

struct sockaddr_un {
	u16 sun_family;
	char sun_path[108];
};

struct unix_address {
	int len;
	struct sockaddr_un name[1];
} RELOCATED;

struct unix_sock {
	struct unix_address *addr;
} RELOCATED;

struct filename {
	const char *name;
} RELOCATED;

struct io_open { /* io_uring/openclose.c */
	struct filename *filename;
} RELOCATED;

struct io_kiocb {
	u8 opcode;
} RELOCATED;

/* --- the values that the recorder sets and reads ------------------------------------------------ */

const volatile struct {
	u64 cgroup;      /* id of the container's cgroup */
	u64 hash_key[2]; /* random: a container cannot compute two paths with one hash */
	u32 hierarchy;   /* enum hierarchy, the one that `cgroup` belongs to */
	u32 sends;       /* sock_send_length is attached: data of connected sockets is read there */
	u64 tick;        /* nanoseconds */
	u8 id[ID_SIZE];  /* if `cgroup` is 0: the container, whose cgroup does not exist yet */
} config SEC(".rodata.config");

struct {
	u64 cgroup; /* the one that has the id of the container in its name */
	u64 process; /* the first one that executed a program in it */
} started SEC(".data.started");

struct {
	u64 memory, memory_limit; /* pages */
	u64 pids, pids_limit;
} peaks SEC(".data.peaks"); /* of cgroups of the container that were removed */

/* PROGRAM gives a number in `subject` its path; it is not an entry of the record. */
enum kind {
	SYSCALL, PROGRAM, EXEC, FILE_OPEN, OPEN_REFUSED, SOCKET, ADDRESS, CAPABILITY, SIGNAL, MOUNT,
	ACCEPT, DNS, DEVICE, RING, RING_OPEN, CHANGE, KINDS,
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

/* Layers that refused a system call: `detail` is the error, the layer and a capability + 1. */
#define LAYER_SHIFT 12
#define LAYER_SECCOMP 1
#define LAYER_CAPABILITY 2
#define LAYER_CAPABILITY_SHIFT 16

#define CHANGE_SHIFT 8 /* `detail` of a change: the number of the call, above the bits of a path */

#define DNS_MALFORMED 1 /* bits of `detail` of a query */
#define DNS_TCP 2

#define CAPABILITY_REFUSED 256 /* bit of `detail` */
#define SI_USER 0              /* include/uapi/asm-generic/siginfo.h */
#define SI_QUEUE -1
#define SI_TKILL -6
#define SIGSYS 31
#define SYS_SECCOMP 1
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

/* A buffer, with what would be too much for the stack. */
struct slot {
	u32 busy;
	u32 pad;
	u64 hash[4];          /* the state of SipHash */
	u32 size, start, end; /* of a DNS question: its bytes at most, a label, its end or 0 */
	u8 header[HEADER_SIZE];
	struct event event;
};

struct process;

/* What a callback of bpf_loop works on. The kernel passes it a pointer to the stack alone. */
struct loop {
	struct slot *slot;
	struct process *process;
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
TABLE(accepts, 8192);
TABLE(names, 8192);
TABLE(devices, 1024);
TABLE(rings, 4096);
TABLE(changes, 16384);

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

/* One system call with its result, whose first occurrence is in the table. */
struct recent {
	u64 call;  /* `subject`, `detail` << 32 and RECENT_USED, or 0 */
	u64 count; /* not in the table yet */
	u64 last;  /* ticks since boot, which cost less than a clock */
};

#define RECENT_USED (1ull << 63)
#define ENTERED 1 /* the kernel's implementation of a system call has begun */
#define LEFT 2    /* the last system call has returned */

struct process {
	u64 program;
	u32 state;   /* ENTERED, LEFT, or 0 before the first begin of a call was seen */
	u32 refused; /* last capability that the kernel refused in the current system call, + 1 */
	struct recent recent[RECENT];
};

/*
 * Threads of the container, each with the program of its process. Most of the cost of a record is
 * in system calls, so a thread counts repeated ones here, without a lock and a look-up.
 */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct process);
} processes SEC(".maps");

/* --- membership --------------------------------------------------------------------------------- */

/*
 * Return whether the directory of a cgroup at an address is ID or PREFIX-ID.scope of the container.
 * The id is random. The kernel verifies a function that is not static once, and not for each call.
 */
__noinline int has_name(u64 address)
{
	struct kernfs_node *node = (struct kernfs_node *)address;
	const char *name = BPF_CORE_READ(node, name);
	u8 text[ID_SIZE + 64];
	long size = bpf_probe_read_kernel_str(text, sizeof(text), name) - 1;
	u32 start = size > ID_SIZE + 6 ? size - ID_SIZE - 6 : 0; /* .scope */

	if (size < ID_SIZE || bpf_probe_read_kernel(text, ID_SIZE, name + start))
		return 0;
	for (u32 i = 0; i < ID_SIZE; i++)
		if (text[i] != config.id[i])
			return 0;
	return 1;
}

/* Return whether the cgroup of a task is the container's or is below it. */
static __noinline int in_container(struct task_struct *task)
{
	struct cgroup *cgroup = cgroup_of(task, config.hierarchy), *ancestor;
	int level = BPF_CORE_READ(cgroup, level);
	u64 known = config.cgroup ? config.cgroup : started.cgroup, id;

	for (int i = 0; i < LEVELS; i++) {
		if (i > level)
			break;
		ancestor = ancestor_of(cgroup, i);
		id = BPF_CORE_READ(ancestor, kn, id);
		if (known ? id == known : has_name((u64)BPF_CORE_READ(ancestor, kn))) {
			if (!known && !__sync_val_compare_and_swap(&started.cgroup, 0, id))
				started.process = bpf_get_current_pid_tgid() >> 32;
			return 1;
		}
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

static __always_inline struct process *process_of(struct task_struct *task)
{
	return bpf_task_storage_get(&processes, task, 0, 0);
}

/*
 * Return `process_of` the current thread. Every thread of the host makes system calls, and most are
 * not recorded: they have no storage at all, and a load tells it faster than the helper.
 */
static __always_inline struct process *caller(struct task_struct *current)
{
	return current->bpf_storage ? process_of(current) : 0;
}

/* As `process_of`. A thread of io_uring is not marked; the leader of its group is. */
static __always_inline struct process *group_of(struct task_struct *task)
{
	struct process *process = process_of(task);

	if (!process && task->group_leader != task)
		process = process_of(task->group_leader);
	return process;
}

static __always_inline struct process *mark(struct task_struct *task, u64 program)
{
	struct process *stored = bpf_task_storage_get(&processes, task, 0,
						      BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (stored)
		stored->program = program;
	else
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

static __always_inline void hash_round(u64 *v)
{
	v[0] += v[1]; v[1] = ROTATE(v[1], 13); v[1] ^= v[0]; v[0] = ROTATE(v[0], 32);
	v[2] += v[3]; v[3] = ROTATE(v[3], 16); v[3] ^= v[2];
	v[0] += v[3]; v[3] = ROTATE(v[3], 21); v[3] ^= v[0];
	v[2] += v[1]; v[1] = ROTATE(v[1], 17); v[1] ^= v[2]; v[2] = ROTATE(v[2], 32);
}

static __always_inline void hash_word(u64 *v, u64 word)
{
	v[3] ^= word;
	hash_round(v);
	v[0] ^= word;
}

static long next_word(u32 index, struct loop *loop)
{
	struct slot *slot = loop->slot;

	if (index >= TEXT_SIZE / 8)
		return 1;
	hash_word(slot->hash, ((u64 *)slot->event.data)[index]);
	return 0;
}

/*
 * Return SipHash-1-3 of the first `size` bytes of a buffer. The kernel verifies the body of bpf_loop
 * once, and that of a loop in C for each word of the longest text, in each program.
 */
__noinline u64 siphash(struct slot *slot, u32 size)
{
	struct loop loop = { .slot = slot };
	u32 whole = size / 8;
	u64 word = 0, *v;

	if (!slot)
		return 0;
	v = slot->hash;
	v[0] = config.hash_key[0] ^ 0x736f6d6570736575ull;
	v[1] = config.hash_key[1] ^ 0x646f72616e646f6dull;
	v[2] = config.hash_key[0] ^ 0x6c7967656e657261ull;
	v[3] = config.hash_key[1] ^ 0x7465646279746573ull;
	bpf_loop(whole, next_word, &loop, 0);
	asm volatile("" : "+r"(whole)); /* the comparison has to be with this register */
	if (whole < TEXT_SIZE / 8 && size % 8)
		word = ((u64 *)slot->event.data)[whole] & ((1ull << (8 * (size % 8))) - 1);
	hash_word(v, word | (u64)size << 56);
	v[2] ^= 0xff;
	hash_round(v);
	hash_round(v);
	hash_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
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

/* Count an occurrence of what `key` describes completely. Returns 0 unless the table is full. */
static __always_inline int note(void *table, struct key *key)
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
		return full;
	event.key = *key;
	if (bpf_ringbuf_output(&events, &event, sizeof(event), 0))
		lose(key->kind, 1);
	else
		value->sent = 1;
	return 0;
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

/* Add what a thread has counted of one system call to the table. */
static __always_inline void flush(struct process *process, u32 index)
{
	struct recent *recent = &process->recent[index & (RECENT - 1)];
	struct key key = { .kind = SYSCALL, .program = process->program };
	struct losses *loss;
	struct value *value;
	u64 last;

	if (!recent->count)
		return;
	key.subject = recent->call & 0xffffffff;
	key.detail = (recent->call & ~RECENT_USED) >> 32;
	value = bpf_map_lookup_elem(&syscalls, &key);
	if (value) {
		last = bpf_ktime_get_boot_ns() - (bpf_jiffies64() - recent->last) * config.tick;
		__sync_fetch_and_add(&value->count, recent->count);
		if (last > value->last)
			value->last = last;
	} else {
		loss = bpf_map_lookup_elem(&losses, &key.kind);
		if (loss)
			__sync_fetch_and_add(&loss->occurrences, recent->count);
	}
	recent->count = 0;
}

static long flush_next(u32 index, struct loop *loop)
{
	flush(loop->process, index);
	loop->process->recent[index & (RECENT - 1)].call = 0;
	return 0;
}

/* Add all that a thread has counted, before its program changes or it ends. */
static __always_inline void flush_all(struct process *process)
{
	struct loop loop = { .process = process };

	bpf_loop(RECENT, flush_next, &loop, 0);
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
	size = BPF_CORE_READ(dentry, d_name.len) & (NAME_SIZE - 1);
	if (parent == dentry) {
		walk->flags |= PATH_DETACHED;
		if (size <= 1) /* a root is "/", a pipe has no name; a memfd is "memfd:NAME" */
			return 1;
	}
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
	return parent == dentry;
}

/*
 * Append the path of a directory entry to the `size` bytes of a buffer, up to the root of its mount
 * namespace: chroot(2) does not shorten it. Returns the new size; `*flags` are bits of `detail`.
 */
static __noinline u32 path_at(struct slot *slot, struct dentry *dentry, struct vfsmount *mount,
			      u32 size, u32 *flags)
{
	struct walk walk = { .slot = slot, .size = size, .dentry = dentry };

	if (!slot || !flags)
		return 0;
	walk.mount = (void *)mount - bpf_core_field_offset(struct mount, mnt);
	bpf_loop(PATH_SIZE, step, &walk, 0);
	*flags = walk.flags;
	return walk.size;
}

static __always_inline u32 path_of(struct slot *slot, struct file *file, u32 size, u32 *flags)
{
	return path_at(slot, BPF_CORE_READ(file, f_path.dentry), BPF_CORE_READ(file, f_path.mnt), size,
		       flags);
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

/* Return the program of the current thread; one that is older than the record is read now. */
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

/* Run once, after the other programs are detached. */
SEC("iter/task")
int flush_processes(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;
	struct process *process;

	if (!task)
		return 0;
	process = process_of(task);
	if (process)
		flush_all(process);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(exited, struct task_struct *task)
{
	struct process *process = process_of(task);

	if (process)
		flush_all(process);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(fork, struct task_struct *parent, struct task_struct *child)
{
	struct process *process = group_of(parent);

	if (process)
		mark(child, program_of(parent, process));
	return 0;
}

/* A process that enters the container from outside is recorded from its first program on. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct process *process = process_of(task);
	struct key key = { .kind = EXEC };

	if (!process) {
		if (!in_container(task))
			return 0;
		process = mark(task, UNKNOWN_PROGRAM);
		if (!process)
			return 0;
	}
	key.program = process->program;
	flush_all(process);
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
	struct inode *inode;
	u32 type;
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
	inode = BPF_CORE_READ(file, f_inode);
	type = BPF_CORE_READ(inode, i_mode) & S_IFMT;
	if (type == S_IFCHR || type == S_IFBLK) {
		key.kind = DEVICE;
		key.subject = (type == S_IFBLK ? 1ull << 32 : 0) | BPF_CORE_READ(inode, i_rdev);
		key.detail &= 7;
		note(&devices, &key);
	}
	return 0;
}

__noinline int note_open_refused(u64 program, u64 path, u32 detail)
{
	struct key key = { .program = program, .kind = OPEN_REFUSED, .detail = detail };
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
__noinline int note_address(u64 program, u32 descriptor, u64 address, u32 length, u32 detail)
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
__noinline int note_mount(u64 program, u64 target, u64 type, u64 source, u32 use_and_error)
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

static __noinline int note_socket(u64 program, u64 family, u64 type, u64 protocol, u32 error)
{
	struct key key = { .program = program, .kind = SOCKET, .detail = error };

	key.subject = (family & 0xffff) << 40 | (type & 15) << 32 | (u32)protocol;
	note(&sockets, &key);
	return 0;
}

static __always_inline struct sock *sock_of(struct task_struct *task, u32 descriptor)
{
	struct socket *socket = BPF_CORE_READ(file_of(task, descriptor), private_data);

	return BPF_CORE_READ(socket, sk);
}

/* Write the address of the kernel's socket: struct sockaddr_in or sockaddr_in6. Returns its size. */
static __always_inline u32 write_address(struct slot *slot, struct sock *sock, u16 port, int peer)
{
	u16 family = BPF_CORE_READ(sock, __sk_common.skc_family);

	*(u16 *)&slot->event.data[0] = family;
	*(u16 *)&slot->event.data[2] = port;
	*(u64 *)&slot->event.data[8] = 0;
	if (family == AF_INET6) {
		*(u32 *)&slot->event.data[4] = 0;
		*(u32 *)&slot->event.data[24] = 0;
		/* The size that is read is that of the destination. */
		if (peer)
			BPF_CORE_READ_INTO((struct in6_addr *)&slot->event.data[8], sock,
					   __sk_common.skc_v6_daddr);
		else
			BPF_CORE_READ_INTO((struct in6_addr *)&slot->event.data[8], sock,
					   __sk_common.skc_v6_rcv_saddr);
		return 28;
	}
	*(u32 *)&slot->event.data[4] = peer ? BPF_CORE_READ(sock, __sk_common.skc_daddr) :
					      BPF_CORE_READ(sock, __sk_common.skc_rcv_saddr);
	return 16;
}

/* Note the peer of an accepted socket, and the local address. The peer's port is not a key. */
static __noinline int note_accept(struct task_struct *task, u64 program, u32 descriptor)
{
	struct key key = { .program = program, .kind = ACCEPT };
	struct sock *sock = sock_of(task, descriptor);
	struct unix_address *address;
	struct slot *slot;
	u32 size = 0, length;
	u16 family;

	if (!sock) {
		lose(ACCEPT, 2); /* another thread has closed it */
		return 0;
	}
	slot = claim();
	if (!slot) {
		lose(ACCEPT, 2);
		return 0;
	}
	family = BPF_CORE_READ(sock, __sk_common.skc_family);
	key.detail = BPF_CORE_READ(sock, sk_protocol);
	if (family == AF_INET || family == AF_INET6) {
		/* The local port, then the peer's address: `port` in the record is the local one. */
		size = write_address(slot, sock,
				     __builtin_bswap16(BPF_CORE_READ(sock, __sk_common.skc_num)), 1);
	} else {
		*(u16 *)&slot->event.data[0] = family;
		size = 2;
		if (family == AF_UNIX) {
			address = BPF_CORE_READ((struct unix_sock *)sock, addr);
			length = BPF_CORE_READ(address, len);
			if (length > 2 && length <= ADDRESS_SIZE &&
			    !bpf_probe_read_kernel(slot->event.data, length & 127,
						   (void *)address +
							   bpf_core_field_offset(
								   struct unix_address, name)))
				size = length & 127;
		}
	}
	key.subject = siphash(slot, size);
	note_text(&accepts, &key, slot, size);
	release(slot);
	return 0;
}

struct query {
	u64 program;
	u64 buffer; /* of the process */
	u64 length;
	u32 tcp;
};

/* Go to the next label of a question. */
static long next_label(u32 index, struct loop *loop)
{
	struct slot *slot = loop->slot;
	u32 start = slot->start, label;

	if (start + 5 > slot->size || start >= QUERY_SIZE)
		return 1;
	label = slot->event.data[start];
	if (!label)
		slot->end = start + 5;
	slot->start = start + label + 1;
	return !label || label > 63;
}

/*
 * Note the question of a DNS query, as it is in the memory of the process. Its id and additional
 * data are no part of the key.
 */
__noinline int note_query(struct query *query)
{
	struct key key = { .kind = DNS };
	u32 size = QUERY_SIZE, whole;
	struct loop loop = {};
	struct slot *slot;

	if (!query || query->length < HEADER_SIZE)
		return 0; /* the length before a query of TCP */
	slot = claim();
	if (!slot) {
		lose(DNS, 2);
		return 0;
	}
	if (query->length < QUERY_SIZE)
		size = query->length;
	key.program = query->program;
	if (query->tcp) {
		key.detail = DNS_TCP;
		query->buffer += 2;
		size -= 2;
	}
	whole = size >= HEADER_SIZE;
	size = whole ? size - HEADER_SIZE : 0;
	asm volatile("%0 &= 511" : "+r"(size));
	if (whole &&
	    (bpf_probe_read_user(slot->header, HEADER_SIZE, (void *)query->buffer) ||
	     bpf_probe_read_user(slot->event.data, size, (void *)query->buffer + HEADER_SIZE))) {
		lose(DNS, 2);
		release(slot);
		return 0;
	}
	slot->end = 0;
	/* a query (QR is 0) with a question, in one part */
	if (size > 4 && !(slot->header[2] & 0x80) && slot->header[5]) {
		slot->start = 0;
		slot->size = size;
		loop.slot = slot;
		bpf_loop(LABELS, next_label, &loop, 0);
	}
	size = slot->end;
	asm volatile("%0 &= 511" : "+r"(size));
	if (size)
		key.subject = siphash(slot, size);
	else
		key.detail |= DNS_MALFORMED;
	note_text(&names, &key, slot, size);
	release(slot);
	return 0;
}

static __always_inline int is_dns(u32 family, u16 port)
{
	return port == __builtin_bswap16(DNS_PORT) && (family == AF_INET || family == AF_INET6);
}

/* A call that sends, or its message: registers of the 64-bit or of the i386 ABI. */
struct sending {
	u64 program;
	u64 vector; /* of sendmmsg(2) */
	u64 address;
	u64 buffer; /* the first part of the data */
	u64 length;
	u32 address_length;
	u32 descriptor;
	u32 error;
	u32 compat;
};

/* Note address and DNS query of one message. */
__noinline int note_send(struct sending *sending)
{
	struct query query = {};
	struct sock *sock;
	u16 head[2] = {};

	if (!sending)
		return 0;
	query.program = sending->program;
	query.buffer = sending->buffer;
	query.length = sending->length;
	if (sending->address && sending->address_length) {
		note_address(sending->program, sending->descriptor, sending->address,
			     sending->address_length, SEND << 12 | sending->error);
		if (sending->error ||
		    bpf_probe_read_user(head, sizeof(head), (void *)sending->address))
			return 0;
		if (is_dns(head[0], head[1]))
			note_query(&query);
		return 0;
	}
	if (sending->error)
		return 0;
	sock = sock_of(bpf_get_current_task_btf(), sending->descriptor);
	if (is_dns(BPF_CORE_READ(sock, __sk_common.skc_family),
		   BPF_CORE_READ(sock, __sk_common.skc_dport))) {
		query.tcp = BPF_CORE_READ(sock, sk_protocol) == IPPROTO_TCP;
		note_query(&query);
	}
	return 0;
}

/* Read the message header at `address` and the first part of its data. Returns 0 if it cannot. */
static __noinline int read_message(struct sending *sending, u64 address)
{
	struct user_msghdr message = {};
	struct compat_msghdr compat = {};
	u64 part[2] = {};
	u32 compat_part[2] = {};

	if (sending->compat) {
		if (bpf_probe_read_user(&compat, sizeof(compat), (void *)address))
			return 0;
		sending->address = compat.msg_name;
		sending->address_length = compat.msg_namelen;
		if (!compat.msg_iovlen ||
		    bpf_probe_read_user(compat_part, sizeof(compat_part), (void *)(u64)compat.msg_iov))
			compat_part[0] = compat_part[1] = 0;
		sending->buffer = compat_part[0];
		sending->length = compat_part[1];
		return 1;
	}
	if (bpf_probe_read_user(&message, sizeof(message), (void *)address))
		return 0;
	sending->address = message.msg_name;
	sending->address_length = message.msg_namelen;
	if (!message.msg_iovlen ||
	    bpf_probe_read_user(part, sizeof(part), (void *)message.msg_iov))
		part[0] = part[1] = 0;
	sending->buffer = part[0];
	sending->length = part[1];
	return 1;
}

static __always_inline void note_message(struct sending *sending, u64 address)
{
	if (read_message(sending, address))
		note_send(sending);
	else
		lose(ADDRESS, 2);
}

static long each_message(u32 index, struct sending *sending)
{
	note_message(sending, sending->vector + (u64)index * (sending->compat ? 32 : 64));
	return 0;
}

/* Calls of sockets, with the numbers of socketcall(2). */
enum socket_call {
	CALL_SOCKET = 1, CALL_BIND = 2, CALL_CONNECT = 3, CALL_ACCEPT = 5, CALL_SEND = 9,
	CALL_SENDTO = 11, CALL_SENDMSG = 16, CALL_ACCEPT4 = 18, CALL_SENDMMSG = 20,
};

struct socket_arguments {
	u64 word[6];
	u64 program;
	long result;
	u32 error;
	u32 compat;
};

__noinline int note_socket_call(struct socket_arguments *arguments, u32 call)
{
	struct sending sending = {};
	u32 error, number;

	if (!arguments)
		return 0;
	error = arguments->error;
	sending.program = arguments->program;
	sending.descriptor = arguments->word[0];
	sending.error = error;
	sending.compat = arguments->compat;
	if (call == CALL_SOCKET) {
		note_socket(arguments->program, arguments->word[0], arguments->word[1],
			    arguments->word[2], error);
		return 0;
	}
	if (error == EBADF || error == ENOTSOCK)
		return 0;
	switch (call) {
	case CALL_BIND:
	case CALL_CONNECT:
		note_address(arguments->program, arguments->word[0], arguments->word[1],
			     arguments->word[2],
			     (call == CALL_BIND ? BIND : CONNECT) << 12 | error);
		return 0;
	case CALL_ACCEPT:
	case CALL_ACCEPT4:
		if (!error)
			note_accept(bpf_get_current_task_btf(), arguments->program,
				    arguments->result);
		return 0;
	case CALL_SEND:
	case CALL_SENDTO:
		if (call == CALL_SENDTO) {
			sending.address = arguments->word[4];
			sending.address_length = arguments->word[5];
		}
		if (config.sends && !sending.address)
			return 0;
		sending.buffer = arguments->word[1];
		sending.length = arguments->word[2];
		note_send(&sending);
		return 0;
	case CALL_SENDMSG:
		if (!read_message(&sending, arguments->word[1]))
			lose(ADDRESS, 2);
		else if (!config.sends || sending.address)
			note_send(&sending);
		return 0;
	case CALL_SENDMMSG:
		sending.vector = arguments->word[1];
		if (error) {
			note_message(&sending, sending.vector);
			return 0;
		}
		number = arguments->result;
		if (number > MESSAGES) {
			lose(ADDRESS, 2);
			number = MESSAGES;
		}
		bpf_loop(number, each_message, &sending, 0);
		return 0;
	}
	return 0;
}

/* Read the arguments of socketcall(2). Returns 0 if it cannot. */
static __always_inline int read_socketcall(struct socket_arguments *arguments, u32 call, u32 address)
{
	u32 words[6] = {};
	u32 size = sizeof(words);

	/* The array may end at a page: net/socket.c reads as many words as the call has. */
	if (call == CALL_SEND || call == CALL_ACCEPT4 || call == CALL_SENDMMSG)
		size = 16;
	else if (call != CALL_SENDTO)
		size = 12;
	if (bpf_probe_read_user(words, size, (void *)(u64)address)) {
		lose(ADDRESS, 2);
		return 0;
	}
	for (u32 i = 0; i < 6; i++)
		arguments->word[i] = words[i];
	return 1;
}

/* Note open(2) and its like: `flags` are bits of `detail`. */
static __always_inline void note_opened(struct task_struct *task, u64 program, long result,
					u64 path, u32 flags, u32 refusal)
{
	if (refusal)
		note_open_refused(program, path, refusal);
	else
		note_open(task, program, result, flags);
}

/* Return the flags of openat2(2), from the memory of the process. */
static __always_inline u32 flags_of_how(u64 how)
{
	u64 flags = 0;

	bpf_probe_read_user(&flags, sizeof(flags), (void *)how);
	return open_flags(flags);
}

static __noinline int note_compat(struct task_struct *task, struct pt_regs *regs, u64 program,
				  long result, u32 refusal)
{
	struct socket_arguments arguments = { .program = program, .result = result, .compat = 1 };
	u32 error = refusal & 0xfff, call = 0;

	switch ((u32)BPF_CORE_READ(regs, orig_ax)) { /* arch/x86/entry/syscalls/syscall_32.tbl */
	case 5: /* open */
		note_opened(task, program, result, (u32)BPF_CORE_READ(regs, bx),
			    open_flags(BPF_CORE_READ(regs, cx)), refusal);
		return 0;
	case 8: /* creat */
		note_opened(task, program, result, (u32)BPF_CORE_READ(regs, bx),
			    OPEN_CREAT | OPEN_TRUNC, refusal);
		return 0;
	case 295: /* openat */
		note_opened(task, program, result, (u32)BPF_CORE_READ(regs, cx),
			    open_flags(BPF_CORE_READ(regs, dx)), refusal);
		return 0;
	case 437: /* openat2 */
		note_opened(task, program, result, (u32)BPF_CORE_READ(regs, cx),
			    flags_of_how((u32)BPF_CORE_READ(regs, dx)), refusal);
		return 0;
	case 342: /* open_by_handle_at */
		if (!error)
			note_open(task, program, result, 0);
		return 0;
	case 21: /* mount */
		note_mount(program, (u32)BPF_CORE_READ(regs, cx), (u32)BPF_CORE_READ(regs, dx),
			   (u32)BPF_CORE_READ(regs, bx), MOUNT_NEW << 12 | error);
		return 0;
	case 22: /* umount */
	case 52: /* umount2 */
		note_mount(program, (u32)BPF_CORE_READ(regs, bx), 0, 0, UNMOUNT << 12 | error);
		return 0;
	case 429: /* move_mount */
		note_mount(program, (u32)BPF_CORE_READ(regs, si), 0, (u32)BPF_CORE_READ(regs, cx),
			   MOUNT_MOVE << 12 | error);
		return 0;
	case 102: /* socketcall */
		arguments.error = error;
		call = BPF_CORE_READ(regs, bx);
		if (read_socketcall(&arguments, call, BPF_CORE_READ(regs, cx)))
			note_socket_call(&arguments, call);
		return 0;
	case 359:
		call = CALL_SOCKET;
		break;
	case 361:
		call = CALL_BIND;
		break;
	case 362:
		call = CALL_CONNECT;
		break;
	case 364:
		call = CALL_ACCEPT4;
		break;
	case 345:
		call = CALL_SENDMMSG;
		break;
	case 369:
		call = CALL_SENDTO;
		break;
	case 370:
		call = CALL_SENDMSG;
		break;
	default:
		return 0;
	}
	arguments.error = error;
	arguments.word[0] = (u32)BPF_CORE_READ(regs, bx);
	arguments.word[1] = (u32)BPF_CORE_READ(regs, cx);
	arguments.word[2] = (u32)BPF_CORE_READ(regs, dx);
	arguments.word[4] = (u32)BPF_CORE_READ(regs, di);
	arguments.word[5] = (u32)BPF_CORE_READ(regs, bp);
	note_socket_call(&arguments, call);
	return 0;
}

#define CHANGE_NAME_SIZE 2048 /* bytes */
#define AT_FDCWD -100

/*
 * Note the name of a file that a call has made, removed or changed, as it is in the memory of the
 * process. The directory that a relative name begins at is read from the kernel, and follows it.
 */
__noinline int note_change(u64 program, u64 name, u32 directory, u32 call)
{
	struct key key = { .program = program, .kind = CHANGE, .detail = call << CHANGE_SHIFT };
	struct task_struct *task = bpf_get_current_task_btf();
	struct slot *slot;
	struct file *file;
	u32 size, flags = 0;
	long length;

	if (!name)
		return 0; /* the file is that of the descriptor */
	slot = claim();
	if (!slot) {
		lose(CHANGE, 2);
		return 0;
	}
	length = bpf_probe_read_user_str(slot->event.data, CHANGE_NAME_SIZE, (void *)name);
	if (length <= 1 || length > CHANGE_NAME_SIZE) {
		if (length != 1)
			lose(CHANGE, 2);
		release(slot);
		return 0;
	}
	size = length;
	if (slot->event.data[0] != '/') {
		if ((int)directory == AT_FDCWD) {
			size = path_at(slot, BPF_CORE_READ(task, fs, pwd.dentry),
				       BPF_CORE_READ(task, fs, pwd.mnt), size, &flags);
		} else {
			file = file_of(task, directory);
			if (!file) {
				lose(CHANGE, 2);
				release(slot);
				return 0;
			}
			size = path_of(slot, file, size, &flags);
		}
	}
	if (size > TEXT_SIZE)
		size = TEXT_SIZE;
	key.detail |= flags;
	key.subject = siphash(slot, size);
	note_text(&changes, &key, slot, size);
	release(slot);
	return 0;
}

/* Note what a successful call of the 64-bit ABI makes, removes or changes. */
static __noinline int note_changes(struct pt_regs *regs, u64 program)
{
	u64 di = BPF_CORE_READ(regs, di), si = BPF_CORE_READ(regs, si), dx = BPF_CORE_READ(regs, dx);
	u32 call = (u32)BPF_CORE_READ(regs, orig_ax) & ~X32_BIT;

	switch (call) { /* arch/x86/entry/syscalls/syscall_64.tbl */
	case 82: /* rename */
		note_change(program, di, AT_FDCWD, call);
		note_change(program, si, AT_FDCWD, call);
		return 0;
	case 264: /* renameat */
	case 316: /* renameat2 */
		note_change(program, si, di, call);
		note_change(program, BPF_CORE_READ(regs, r10), dx, call);
		return 0;
	case 86: /* link */
	case 88: /* symlink */
		note_change(program, si, AT_FDCWD, call);
		return 0;
	case 265: /* linkat */
		note_change(program, BPF_CORE_READ(regs, r10), dx, call);
		return 0;
	case 266: /* symlinkat */
		note_change(program, dx, si, call);
		return 0;
	case 258: /* mkdirat */
	case 259: /* mknodat */
	case 260: /* fchownat */
	case 261: /* futimesat */
	case 263: /* unlinkat */
	case 268: /* fchmodat */
	case 280: /* utimensat */
	case 452: /* fchmodat2 */
		note_change(program, si, di, call);
		return 0;
	default:
		note_change(program, di, AT_FDCWD, call);
		return 0;
	}
}

/* Bits of the calls of the 64-bit ABI below 512 that `note_changes` knows. */
static const u64 with_changes[8] = {
	0,
	1ull << (76 - 64) | 1ull << (82 - 64) | 1ull << (83 - 64) | 1ull << (84 - 64) |
		1ull << (86 - 64) | 1ull << (87 - 64) | 1ull << (88 - 64) | 1ull << (90 - 64) |
		1ull << (92 - 64) | 1ull << (94 - 64),
	1ull << (132 - 128) | 1ull << (133 - 128) | 1ull << (188 - 128) | 1ull << (189 - 128),
	1ull << (197 - 192) | 1ull << (198 - 192) | 1ull << (235 - 192),
	1ull << (258 - 256) | 1ull << (259 - 256) | 1ull << (260 - 256) | 1ull << (261 - 256) |
		1ull << (263 - 256) | 1ull << (264 - 256) | 1ull << (265 - 256) |
		1ull << (266 - 256) | 1ull << (268 - 256) | 1ull << (280 - 256) | 1ull << (316 - 256),
	0,
	0,
	1ull << (452 - 448),
};

/* Note what a system call of the 64-bit ABI names: a file, an address, a mount. */
static __noinline int note_arguments(struct task_struct *task, struct pt_regs *regs, u64 program,
				     long result, u32 refusal)
{
	struct socket_arguments arguments = { .program = program, .result = result };
	u32 error = refusal & 0xfff, call = 0;
	u64 di = BPF_CORE_READ(regs, di), si = BPF_CORE_READ(regs, si), dx = BPF_CORE_READ(regs, dx);

	switch ((u32)BPF_CORE_READ(regs, orig_ax) & ~X32_BIT) { /* .../syscall_64.tbl */
	case 2: /* open */
		note_opened(task, program, result, di, open_flags(si), refusal);
		return 0;
	case 85: /* creat */
		note_opened(task, program, result, di, OPEN_CREAT | OPEN_TRUNC, refusal);
		return 0;
	case 257: /* openat */
		note_opened(task, program, result, si, open_flags(dx), refusal);
		return 0;
	case 437: /* openat2 */
		note_opened(task, program, result, si, flags_of_how(dx), refusal);
		return 0;
	case 304: /* open_by_handle_at */
		if (!error)
			note_open(task, program, result, 0);
		return 0;
	case 165: /* mount */
		note_mount(program, si, dx, di, MOUNT_NEW << 12 | error);
		return 0;
	case 166: /* umount2 */
		note_mount(program, di, 0, 0, UNMOUNT << 12 | error);
		return 0;
	case 429: /* move_mount */
		note_mount(program, BPF_CORE_READ(regs, r10), 0, si, MOUNT_MOVE << 12 | error);
		return 0;
	case 41:
		call = CALL_SOCKET;
		break;
	case 42:
		call = CALL_CONNECT;
		break;
	case 43:
	case 288:
		call = CALL_ACCEPT4;
		break;
	case 44:
		call = CALL_SENDTO;
		break;
	case 46:
		call = CALL_SENDMSG;
		break;
	case 49:
		call = CALL_BIND;
		break;
	case 307:
		call = CALL_SENDMMSG;
		break;
	default:
		return 0;
	}
	arguments.error = error;
	arguments.word[0] = di;
	arguments.word[1] = si;
	arguments.word[2] = dx;
	arguments.word[4] = BPF_CORE_READ(regs, r8);
	arguments.word[5] = BPF_CORE_READ(regs, r9);
	note_socket_call(&arguments, call);
	return 0;
}

/* Bits of the calls of the 64-bit ABI below 512 that `note_arguments` knows. */
static const u64 with_arguments[8] = {
	1ull << 2 | 1ull << 41 | 1ull << 42 | 1ull << 43 | 1ull << 44 | 1ull << 46 | 1ull << 49,
	1ull << (85 - 64),
	1ull << (165 - 128) | 1ull << (166 - 128),
	0,
	1ull << (257 - 256) | 1ull << (288 - 256) | 1ull << (304 - 256) | 1ull << (307 - 256),
	0,
	1ull << (429 - 384) | 1ull << (437 - 384),
	0,
};

/* After seccomp: a call without this event was answered by a filter. */
SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *regs, long number)
{
	struct process *process = caller(bpf_get_current_task_btf());

	if (process)
		process->state = ENTERED;
	return 0;
}

/* Count a system call of the 64-bit ABI in the thread, the first one and others in the table. */
static __noinline int count_call(struct process *process, struct key *key, u32 compat)
{
	u32 index = (key->subject ^ key->detail) & (RECENT - 1);
	struct recent *recent = &process->recent[index];
	u64 call = key->subject | (u64)key->detail << 32 | RECENT_USED;

	if (compat) {
		note(&syscalls, key);
		return 0;
	}
	if (recent->call == call) {
		recent->count++;
		recent->last = bpf_jiffies64();
		return 0;
	}
	flush(process, index);
	recent->call = note(&syscalls, key) ? 0 : call;
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct process *process = caller(task);
	struct key key = { .kind = SYSCALL };
	u32 number, detail = 0, compat;

	if (!process)
		return 0;
	key.program = program_of(task, process);
	number = regs->orig_ax;
	/* -1: rt_sigreturn(2), which has no result of its own */
	if (result < 0 && result >= -MAX_ERRNO && number != (u32)-1) {
		detail = -result;
		if (process->state == LEFT)
			detail |= LAYER_SECCOMP << LAYER_SHIFT;
		else if (process->refused && (detail == EPERM || detail == EACCES))
			detail |= LAYER_CAPABILITY << LAYER_SHIFT |
				  (process->refused & 0xff) << LAYER_CAPABILITY_SHIFT;
	}
	if (process->state == ENTERED)
		process->state = LEFT;
	process->refused = 0;
	key.subject = number;
	key.detail = detail;
	compat = task->thread_info.status & TS_COMPAT;
	if (compat)
		key.subject |= 1ull << 32;
	count_call(process, &key, compat);
	if (compat)
		note_compat(task, regs, key.program, result, detail);
	else if (with_arguments[number >> 6 & 7] & 1ull << (number & 63))
		note_arguments(task, regs, key.program, result, detail);
	else if (!detail && with_changes[number >> 6 & 7] & 1ull << (number & 63))
		note_changes(regs, key.program);
	return 0;
}

/*
 * Data of a connected socket, in the context of the call. Linux 6.3. Messages of sendmmsg(2) are
 * read when it returns: which one this is cannot be told.
 */
SEC("?tp_btf/sock_send_length")
int BPF_PROG(sent, struct sock *sock, int size, int flags)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct sending sending = {};
	struct process *process;
	struct query query = {};
	struct pt_regs *regs;
	u64 vector = 0, part[2] = {};
	u32 compat_part[2] = {};
	u32 number;

	if (!is_dns(sock->__sk_common.skc_family, sock->__sk_common.skc_dport) || size < 0)
		return 0;
	process = process_of(task);
	if (!process)
		return 0;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	number = BPF_CORE_READ(regs, orig_ax);
	query.program = program_of(task, process);
	query.tcp = sock->sk_protocol == IPPROTO_TCP;
	if (task->thread_info.status & TS_COMPAT) {
		sending.compat = 1;
		switch (number) {
		case 4:   /* write */
		case 369: /* sendto */
			query.buffer = (u32)BPF_CORE_READ(regs, cx);
			query.length = (u32)BPF_CORE_READ(regs, dx);
			break;
		case 146: /* writev */
			vector = (u32)BPF_CORE_READ(regs, cx);
			break;
		case 370: /* sendmsg */
			read_message(&sending, (u32)BPF_CORE_READ(regs, cx));
			query.buffer = sending.buffer;
			query.length = sending.length;
			break;
		case 102: /* socketcall */
			if (bpf_probe_read_user(part, sizeof(part),
						(void *)(u64)(u32)BPF_CORE_READ(regs, cx)))
				return 0;
			number = BPF_CORE_READ(regs, bx);
			if (number == CALL_SENDMSG) {
				read_message(&sending, part[0] >> 32);
				query.buffer = sending.buffer;
				query.length = sending.length;
			} else if (number != CALL_SENDMMSG) {
				query.buffer = part[0] >> 32;
				query.length = (u32)part[1];
			}
		}
		if (vector && !bpf_probe_read_user(compat_part, sizeof(compat_part), (void *)vector)) {
			query.buffer = compat_part[0];
			query.length = compat_part[1];
		}
	} else {
		switch (number & ~X32_BIT) {
		case 1:  /* write */
		case 44: /* sendto */
			query.buffer = BPF_CORE_READ(regs, si);
			query.length = BPF_CORE_READ(regs, dx);
			break;
		case 20: /* writev */
			vector = BPF_CORE_READ(regs, si);
			break;
		case 46: /* sendmsg */
			read_message(&sending, BPF_CORE_READ(regs, si));
			query.buffer = sending.buffer;
			query.length = sending.length;
		}
		if (vector && !bpf_probe_read_user(part, sizeof(part), (void *)vector)) {
			query.buffer = part[0];
			query.length = part[1];
		}
	}
	if (query.buffer)
		note_query(&query);
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
	u16 port;
	u32 size;

	if (sock->sk_protocol != IPPROTO_TCP || (new_state != TCP_SYN_SENT && new_state != TCP_LISTEN))
		return 0;
	process = group_of(task);
	if (!process)
		return 0;
	key.program = program_of(task, process);
	key.detail = IPPROTO_TCP << 16 | (new_state == TCP_LISTEN ? LISTEN : TCP_CONNECT) << 12;
	slot = claim();
	if (!slot) {
		lose(ADDRESS, 2);
		return 0;
	}
	if (new_state == TCP_LISTEN)
		port = __builtin_bswap16(BPF_CORE_READ(sock, __sk_common.skc_num));
	else
		port = BPF_CORE_READ(sock, __sk_common.skc_dport);
	size = write_address(slot, sock, port, new_state != TCP_LISTEN);
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
	struct process *process = group_of(task);
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
	if (result)
		process->refused = capability + 1;
	note(&capabilities, &key);
	return 0;
}

/* --- signals ------------------------------------------------------------------------------------ */

/* Count a system call that a seccomp filter ends by SIGSYS. */
static __always_inline void note_killed(struct task_struct *task, struct process *process)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct key key = { .kind = SYSCALL, .detail = LAYER_SECCOMP << LAYER_SHIFT };

	key.program = program_of(task, process);
	key.subject = (u32)BPF_CORE_READ(regs, orig_ax);
	if (task->thread_info.status & TS_COMPAT)
		key.subject |= 1ull << 32;
	note(&syscalls, &key);
}

SEC("tp_btf/signal_generate")
int BPF_PROG(signal_generate, int number, struct kernel_siginfo *info, struct task_struct *receiver,
	     int group, int result)
{
	struct task_struct *task = bpf_get_current_task_btf(), *leader = receiver->group_leader;
	struct process *process = group_of(task), *other;
	struct key key = { .kind = SIGNAL };
	int code;

	/* SEND_SIG_NOINFO and SEND_SIG_PRIV are 0 and 1. */
	if (!process || (u64)info <= 1)
		return 0;
	if (number == SIGSYS && receiver == task && BPF_CORE_READ(info, si_code) == SYS_SECCOMP) {
		note_killed(task, process);
		return 0;
	}
	if (leader == task->group_leader)
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

/* --- io_uring ----------------------------------------------------------------------------------- */

#define IORING_OP_OPENAT 18 /* include/uapi/linux/io_uring.h */
#define IORING_OP_OPENAT2 28

/*
 * In the context of io_uring_enter(2), or of the thread that polls the ring. The name of an opened
 * file was copied by the kernel, so the process cannot change it. The result is not seen.
 */
SEC("?tp_btf/io_uring_submit_req")
int BPF_PROG(ring_submit, struct io_kiocb *request)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct process *process = group_of(task);
	struct io_open *open = (void *)request;
	struct key key = { .kind = RING };
	u32 operation = BPF_CORE_READ(request, opcode);
	struct slot *slot;
	long size;

	if (!process)
		return 0;
	key.program = program_of(task, process);
	key.detail = operation;
	if (operation != IORING_OP_OPENAT && operation != IORING_OP_OPENAT2) {
		note(&rings, &key);
		return 0;
	}
	key.kind = RING_OPEN;
	slot = claim();
	if (!slot) {
		lose(RING_OPEN, 2);
		return 0;
	}
	size = bpf_probe_read_kernel_str(slot->event.data, PATH_SIZE,
					 BPF_CORE_READ(open, filename, name));
	if (size <= 0 || size > PATH_SIZE) {
		lose(RING_OPEN, 2);
	} else {
		size--;
		key.subject = siphash(slot, size);
		note_text(&rings, &key, slot, size);
	}
	release(slot);
	return 0;
}

/* --- resources ---------------------------------------------------------------------------------- */

static __always_inline void *state_of(struct cgroup *cgroup, u32 subsystem)
{
	void *state = 0;

	bpf_probe_read_kernel(&state, sizeof(state),
			      (void *)cgroup + bpf_core_field_offset(struct cgroup, subsys) +
				      subsystem * sizeof(void *));
	return state;
}

/*
 * Keep the peaks of a cgroup that is removed, with the mutex that also guards its controllers. A
 * cgroup below it with the same name has no larger ones.
 */
SEC("?tp_btf/cgroup_rmdir")
int BPF_PROG(removed, struct cgroup *cgroup, const char *path)
{
	struct mem_cgroup *memory;
	struct pids_cgroup *pids;
	u64 peak;

	if (!has_name((u64)BPF_CORE_READ(cgroup, kn)))
		return 0;
	memory = state_of(cgroup, bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id));
	if (memory) {
		peak = BPF_CORE_READ(memory, memory.watermark);
		if (peak > peaks.memory) {
			peaks.memory = peak;
			peaks.memory_limit = BPF_CORE_READ(memory, memory.max);
		}
	}
	pids = state_of(cgroup, bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id));
	if (pids && bpf_core_field_exists(pids->watermark)) {
		peak = BPF_CORE_READ(pids, watermark);
		if (peak > peaks.pids) {
			peaks.pids = peak;
			peaks.pids_limit = BPF_CORE_READ(pids, limit.counter);
		}
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
