/*
 * The system calls that store and name many objects, in two calls from Python.
 *
 * Optional. bootc.repository.store_batch decides whether it is used and holds the same functions
 * in Python, which are the specification. Here one call does the work of a batch without the GIL:
 * in Python each of the small system calls gives the GIL away and then waits for it.
 *
 * What is not plainly right is left to the caller: it repeats the work for one object in Python,
 * which knows every fault and its message.
 *
 * Stable ABI of Python 3.11, no library, no state.
 *
 * Sources: openat2(2), open(2) about O_TMPFILE, Linux Documentation/filesystems/fsverity.rst.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030b0000
#endif
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fsverity.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What store_batch returns instead of a descriptor. */
#define PRESENT (-1)
#define UNDECIDED (-2)

#define MAX_DIGEST 64
#define OBJECT_MODE 0644

struct file {
    const char *data;
    size_t size;
    const char *path;
    const unsigned char *digest;
    int state;
};

struct batch {
    int objects_fd;
    /* The number of the algorithm of fs-verity. */
    unsigned algorithm;
    size_t digest_size;
    /* Enable fs-verity on new files, and demand it of those that are there. */
    int enable;
    int secure;
};

static int open_below(int dir_fd, const char *path, int flags)
{
    struct open_how how;
    memset(&how, 0, sizeof how);
    how.flags = (unsigned)(flags | O_CLOEXEC | O_NOFOLLOW);
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
    return (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
}

/* Whether the kernel vouches for the digest: 1 yes, 0 it has none, -1 for another one or a fault. */
static int measured(int fd, const struct batch *batch, const struct file *file)
{
    /* struct fsverity_digest: algorithm, size of the digest, and the digest. */
    uint16_t answer[2 + MAX_DIGEST / 2] = {0, MAX_DIGEST};
    if (ioctl(fd, FS_IOC_MEASURE_VERITY, answer) == 0)
        return answer[0] == batch->algorithm && answer[1] == batch->digest_size &&
                       memcmp(answer + 2, file->digest, batch->digest_size) == 0
                   ? 1
                   : -1;
    return errno == ENODATA || errno == EOPNOTSUPP || errno == ENOTTY || errno == ENOSYS ? 0 : -1;
}

static int same_content(int fd, const struct file *file)
{
    char buffer[1 << 16];
    size_t at = 0;
    for (;;) {
        ssize_t count = read(fd, buffer, sizeof buffer);
        if (count < 0)
            return 0;
        if (count == 0)
            return at == file->size;
        if ((size_t)count > file->size - at || memcmp(buffer, file->data + at, (size_t)count) != 0)
            return 0;
        at += (size_t)count;
    }
}

/* Look at the object of this name: 1 if it is right, 0 if there is none, -1 if undecided. */
static int look_up(const struct batch *batch, const struct file *file)
{
    /* O_NONBLOCK: a FIFO in an object's place must not hang us. */
    int fd = open_below(batch->objects_fd, file->path, O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    struct stat found;
    int right = fstat(fd, &found) == 0 && S_ISREG(found.st_mode) &&
                (uint64_t)found.st_size == (uint64_t)file->size;
    if (right) {
        int vouched = measured(fd, batch, file);
        right = vouched >= batch->secure && same_content(fd, file);
    }
    close(fd);
    return right ? 1 : -1;
}

static int write_whole(int fd, const struct file *file)
{
    size_t at = 0;
    while (at < file->size) {
        ssize_t count = write(fd, file->data + at, file->size - at);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return -1;
        at += (size_t)count;
    }
    return 0;
}

static int enable_verity(int fd, const struct batch *batch, const struct file *file)
{
    struct fsverity_enable_arg argument;
    memset(&argument, 0, sizeof argument);
    argument.version = 1;
    argument.hash_algorithm = batch->algorithm;
    argument.block_size = 4096;
    if (ioctl(fd, FS_IOC_ENABLE_VERITY, &argument) != 0)
        return -1;
    return measured(fd, batch, file) == 1 ? 0 : -1;
}

/* Return a descriptor of a new file without a name, open for reading, or -1. */
static int create(const struct batch *batch, const struct file *file)
{
    int fd = openat(batch->objects_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, OBJECT_MODE);
    if (fd < 0)
        return -1;
    if (fchmod(fd, OBJECT_MODE) != 0 || write_whole(fd, file) != 0) {
        close(fd);
        return -1;
    }
    if (!batch->enable)
        return fd;
    /* fs-verity can be enabled only on files that nobody has open for writing. */
    char name[32];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    int reading = open(name, O_RDONLY | O_CLOEXEC);
    close(fd);
    if (reading >= 0 && enable_verity(reading, batch, file) != 0) {
        close(reading);
        return -1;
    }
    return reading;
}

static void store_files(const struct batch *batch, struct file *files, Py_ssize_t count)
{
    int failed = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        struct file *file = &files[i];
        file->state = UNDECIDED;
        /* After a failure, of a full disk for example, the rest is left to the caller. */
        if (failed)
            continue;
        switch (look_up(batch, file)) {
        case 1:
            file->state = PRESENT;
            break;
        case 0: {
            int fd = create(batch, file);
            failed = fd < 0;
            file->state = failed ? UNDECIDED : fd;
        }
        }
    }
}

static PyObject *states_of(const struct file *files, Py_ssize_t count)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        PyObject *state = PyLong_FromLong(files[i].state);
        if (state == NULL || PyList_SetItem(list, i, state) != 0) {
            Py_DECREF(list);
            list = NULL;
        }
    }
    return list;
}

/* Borrow the bytes of equally long tuples, which keep them alive and cannot change. */
static int borrow(PyObject *contents, PyObject *paths, PyObject *digests, size_t digest_size,
                  struct file *files, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        char *data, *path, *digest;
        Py_ssize_t size, length;
        PyObject *item = contents == NULL ? NULL : PyTuple_GetItem(contents, i);
        if (item != NULL && PyBytes_AsStringAndSize(item, &data, &size) == 0) {
            files[i].data = data;
            files[i].size = (size_t)size;
        }
        if (PyErr_Occurred())
            return -1;
        /* Without a length, a zero byte in the path is an error. */
        if ((item = PyTuple_GetItem(paths, i)) == NULL ||
            PyBytes_AsStringAndSize(item, &path, NULL) != 0)
            return -1;
        files[i].path = path;
        if (digests == NULL)
            continue;
        if ((item = PyTuple_GetItem(digests, i)) == NULL ||
            PyBytes_AsStringAndSize(item, &digest, &length) != 0)
            return -1;
        if ((size_t)length != digest_size) {
            PyErr_Format(PyExc_ValueError, "digest of %zd bytes", length);
            return -1;
        }
        files[i].digest = (unsigned char *)digest;
    }
    return 0;
}

static PyObject *store_batch(PyObject *Py_UNUSED(module), PyObject *args)
{
    struct batch batch;
    PyObject *contents, *paths, *digests;
    if (!PyArg_ParseTuple(args, "iO!O!O!Ipp", &batch.objects_fd, &PyTuple_Type, &contents,
                          &PyTuple_Type, &paths, &PyTuple_Type, &digests, &batch.algorithm,
                          &batch.enable, &batch.secure))
        return NULL;
    Py_ssize_t count = PyTuple_Size(contents);
    if (PyTuple_Size(paths) != count || PyTuple_Size(digests) != count) {
        PyErr_SetString(PyExc_ValueError, "tuples of different lengths");
        return NULL;
    }
    batch.digest_size = batch.algorithm == FS_VERITY_HASH_ALG_SHA256 ? 32 : 64;
    struct file *files = calloc(count ? (size_t)count : 1, sizeof *files);
    if (files == NULL)
        return PyErr_NoMemory();
    PyObject *result = NULL;
    if (borrow(contents, paths, digests, batch.digest_size, files, count) == 0) {
        Py_BEGIN_ALLOW_THREADS
        store_files(&batch, files, count);
        Py_END_ALLOW_THREADS
        result = states_of(files, count);
        for (Py_ssize_t i = 0; result == NULL && i < count; i++)
            if (files[i].state >= 0)
                close(files[i].state);
    }
    free(files);
    return result;
}

/* Return 0, or the errno of the failure. */
static int name_file(int objects_fd, int fd, const char *path)
{
    char bucket[3] = {path[0], path[0] ? path[1] : 0, 0}, source[32];
    if (strlen(path) < 4 || path[2] != '/' || strchr(path + 3, '/') != NULL)
        return EINVAL;
    int bucket_fd = open_below(objects_fd, bucket, O_PATH | O_DIRECTORY);
    if (bucket_fd < 0)
        return errno;
    snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
    int error = linkat(AT_FDCWD, source, bucket_fd, path + 3, AT_SYMLINK_FOLLOW) == 0 ? 0 : errno;
    close(bucket_fd);
    return error;
}

static PyObject *name_batch(PyObject *Py_UNUSED(module), PyObject *args)
{
    int objects_fd;
    PyObject *fds, *paths;
    if (!PyArg_ParseTuple(args, "iO!O!", &objects_fd, &PyTuple_Type, &fds, &PyTuple_Type, &paths))
        return NULL;
    Py_ssize_t count = PyTuple_Size(fds);
    if (PyTuple_Size(paths) != count) {
        PyErr_SetString(PyExc_ValueError, "tuples of different lengths");
        return NULL;
    }
    struct file *files = calloc(count ? (size_t)count : 1, sizeof *files);
    if (files == NULL)
        return PyErr_NoMemory();
    PyObject *result = NULL;
    int bad = borrow(NULL, paths, NULL, 0, files, count) != 0;
    for (Py_ssize_t i = 0; !bad && i < count; i++) {
        files[i].state = (int)PyLong_AsLong(PyTuple_GetItem(fds, i));
        bad = PyErr_Occurred() != NULL;
    }
    if (!bad) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < count; i++)
            files[i].state = name_file(objects_fd, files[i].state, files[i].path);
        Py_END_ALLOW_THREADS
        result = states_of(files, count);
    }
    free(files);
    return result;
}

static PyMethodDef methods[] = {
    {"store_batch", store_batch, METH_VARARGS,
     "store_batch(objects_fd, contents, paths, digests, algorithm, enable, secure, /)\n--\n\n"
     "Return for each content a descriptor of a new file, PRESENT or UNDECIDED."},
    {"name_batch", name_batch, METH_VARARGS,
     "name_batch(objects_fd, fds, paths, /)\n--\n\n"
     "Link each file below the directory of objects; return 0 or the errno for each."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module)
{
    return PyModule_AddIntConstant(module, "PRESENT", PRESENT) != 0 ||
                   PyModule_AddIntConstant(module, "UNDECIDED", UNDECIDED) != 0
               ? -1
               : 0;
}

/* A slot holds a function as void *; the detour keeps ISO C quiet about it. */
static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)(intptr_t)execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "bootc.repository._store",
    .m_doc = "Stores and names many objects at once, without the GIL.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__store(void) { return PyModuleDef_Init(&definition); }
