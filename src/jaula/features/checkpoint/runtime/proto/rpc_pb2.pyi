from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CgroupMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IGNORE: _ClassVar[CgroupMode]
    SOFT: _ClassVar[CgroupMode]

class NetworkLock(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IPTABLES: _ClassVar[NetworkLock]
    NFTABLES: _ClassVar[NetworkLock]
    SKIP: _ClassVar[NetworkLock]

class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EMPTY: _ClassVar[Type]
    DUMP: _ClassVar[Type]
    RESTORE: _ClassVar[Type]
    CHECK: _ClassVar[Type]
    PRE_DUMP: _ClassVar[Type]
    NOTIFY: _ClassVar[Type]
    FEATURE_CHECK: _ClassVar[Type]
    VERSION: _ClassVar[Type]
IGNORE: CgroupMode
SOFT: CgroupMode
IPTABLES: NetworkLock
NFTABLES: NetworkLock
SKIP: NetworkLock
EMPTY: Type
DUMP: Type
RESTORE: Type
CHECK: Type
PRE_DUMP: Type
NOTIFY: Type
FEATURE_CHECK: Type
VERSION: Type

class InheritedFd(_message.Message):
    __slots__ = ("key", "fd")
    KEY_FIELD_NUMBER: _ClassVar[int]
    FD_FIELD_NUMBER: _ClassVar[int]
    key: str
    fd: int
    def __init__(self, key: _Optional[str] = ..., fd: _Optional[int] = ...) -> None: ...

class CgroupRoot(_message.Message):
    __slots__ = ("controller", "path")
    CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    controller: str
    path: str
    def __init__(self, controller: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class Options(_message.Message):
    __slots__ = ("images_dir_fd", "pid", "leave_running", "tcp_established", "shell_job", "file_locks", "log_level", "log_file", "notify_scripts", "root", "parent_images", "track_mem", "work_dir_fd", "link_remap", "manage_cgroups", "cgroup_roots", "inherited_fds", "manage_cgroups_mode", "ghost_limit", "external", "empty_namespaces", "timeout", "orphan_pts_master", "tcp_close", "lsm_profile", "network_lock", "unprivileged", "images_dir")
    IMAGES_DIR_FD_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    LEAVE_RUNNING_FIELD_NUMBER: _ClassVar[int]
    TCP_ESTABLISHED_FIELD_NUMBER: _ClassVar[int]
    SHELL_JOB_FIELD_NUMBER: _ClassVar[int]
    FILE_LOCKS_FIELD_NUMBER: _ClassVar[int]
    LOG_LEVEL_FIELD_NUMBER: _ClassVar[int]
    LOG_FILE_FIELD_NUMBER: _ClassVar[int]
    NOTIFY_SCRIPTS_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    PARENT_IMAGES_FIELD_NUMBER: _ClassVar[int]
    TRACK_MEM_FIELD_NUMBER: _ClassVar[int]
    WORK_DIR_FD_FIELD_NUMBER: _ClassVar[int]
    LINK_REMAP_FIELD_NUMBER: _ClassVar[int]
    MANAGE_CGROUPS_FIELD_NUMBER: _ClassVar[int]
    CGROUP_ROOTS_FIELD_NUMBER: _ClassVar[int]
    INHERITED_FDS_FIELD_NUMBER: _ClassVar[int]
    MANAGE_CGROUPS_MODE_FIELD_NUMBER: _ClassVar[int]
    GHOST_LIMIT_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_FIELD_NUMBER: _ClassVar[int]
    EMPTY_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    ORPHAN_PTS_MASTER_FIELD_NUMBER: _ClassVar[int]
    TCP_CLOSE_FIELD_NUMBER: _ClassVar[int]
    LSM_PROFILE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_LOCK_FIELD_NUMBER: _ClassVar[int]
    UNPRIVILEGED_FIELD_NUMBER: _ClassVar[int]
    IMAGES_DIR_FIELD_NUMBER: _ClassVar[int]
    images_dir_fd: int
    pid: int
    leave_running: bool
    tcp_established: bool
    shell_job: bool
    file_locks: bool
    log_level: int
    log_file: str
    notify_scripts: bool
    root: str
    parent_images: str
    track_mem: bool
    work_dir_fd: int
    link_remap: bool
    manage_cgroups: bool
    cgroup_roots: _containers.RepeatedCompositeFieldContainer[CgroupRoot]
    inherited_fds: _containers.RepeatedCompositeFieldContainer[InheritedFd]
    manage_cgroups_mode: CgroupMode
    ghost_limit: int
    external: _containers.RepeatedScalarFieldContainer[str]
    empty_namespaces: int
    timeout: int
    orphan_pts_master: bool
    tcp_close: bool
    lsm_profile: str
    network_lock: NetworkLock
    unprivileged: bool
    images_dir: str
    def __init__(self, images_dir_fd: _Optional[int] = ..., pid: _Optional[int] = ..., leave_running: _Optional[bool] = ..., tcp_established: _Optional[bool] = ..., shell_job: _Optional[bool] = ..., file_locks: _Optional[bool] = ..., log_level: _Optional[int] = ..., log_file: _Optional[str] = ..., notify_scripts: _Optional[bool] = ..., root: _Optional[str] = ..., parent_images: _Optional[str] = ..., track_mem: _Optional[bool] = ..., work_dir_fd: _Optional[int] = ..., link_remap: _Optional[bool] = ..., manage_cgroups: _Optional[bool] = ..., cgroup_roots: _Optional[_Iterable[_Union[CgroupRoot, _Mapping]]] = ..., inherited_fds: _Optional[_Iterable[_Union[InheritedFd, _Mapping]]] = ..., manage_cgroups_mode: _Optional[_Union[CgroupMode, str]] = ..., ghost_limit: _Optional[int] = ..., external: _Optional[_Iterable[str]] = ..., empty_namespaces: _Optional[int] = ..., timeout: _Optional[int] = ..., orphan_pts_master: _Optional[bool] = ..., tcp_close: _Optional[bool] = ..., lsm_profile: _Optional[str] = ..., network_lock: _Optional[_Union[NetworkLock, str]] = ..., unprivileged: _Optional[bool] = ..., images_dir: _Optional[str] = ...) -> None: ...

class Features(_message.Message):
    __slots__ = ("mem_track", "lazy_pages", "pidfd_store")
    MEM_TRACK_FIELD_NUMBER: _ClassVar[int]
    LAZY_PAGES_FIELD_NUMBER: _ClassVar[int]
    PIDFD_STORE_FIELD_NUMBER: _ClassVar[int]
    mem_track: bool
    lazy_pages: bool
    pidfd_store: bool
    def __init__(self, mem_track: _Optional[bool] = ..., lazy_pages: _Optional[bool] = ..., pidfd_store: _Optional[bool] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("type", "options", "notify_success", "keep_open", "features")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    NOTIFY_SUCCESS_FIELD_NUMBER: _ClassVar[int]
    KEEP_OPEN_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    type: Type
    options: Options
    notify_success: bool
    keep_open: bool
    features: Features
    def __init__(self, type: _Optional[_Union[Type, str]] = ..., options: _Optional[_Union[Options, _Mapping]] = ..., notify_success: _Optional[bool] = ..., keep_open: _Optional[bool] = ..., features: _Optional[_Union[Features, _Mapping]] = ...) -> None: ...

class Restored(_message.Message):
    __slots__ = ("pid",)
    PID_FIELD_NUMBER: _ClassVar[int]
    pid: int
    def __init__(self, pid: _Optional[int] = ...) -> None: ...

class Notification(_message.Message):
    __slots__ = ("script", "pid")
    SCRIPT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    script: str
    pid: int
    def __init__(self, script: _Optional[str] = ..., pid: _Optional[int] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("major", "minor", "sublevel")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    SUBLEVEL_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    sublevel: int
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ..., sublevel: _Optional[int] = ...) -> None: ...

class Response(_message.Message):
    __slots__ = ("type", "success", "restored", "notification", "error_number", "features", "error_message", "version")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    RESTORED_FIELD_NUMBER: _ClassVar[int]
    NOTIFICATION_FIELD_NUMBER: _ClassVar[int]
    ERROR_NUMBER_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    type: Type
    success: bool
    restored: Restored
    notification: Notification
    error_number: int
    features: Features
    error_message: str
    version: Version
    def __init__(self, type: _Optional[_Union[Type, str]] = ..., success: _Optional[bool] = ..., restored: _Optional[_Union[Restored, _Mapping]] = ..., notification: _Optional[_Union[Notification, _Mapping]] = ..., error_number: _Optional[int] = ..., features: _Optional[_Union[Features, _Mapping]] = ..., error_message: _Optional[str] = ..., version: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...
