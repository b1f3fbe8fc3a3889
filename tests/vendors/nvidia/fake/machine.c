/* The machine in shared memory: who may touch it when, what handles mean, and how calls fail on demand. */
#include "machine.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char path[PATH_MAX];
static struct machine *machine;
static unsigned inits, load;

/* The lock belongs to this description of the file, so threads exclude each other as processes do, and none leaves it behind. */
static __thread int lock_fd = -1;

/* The machine lies beside the library, so that whoever opens this copy of the library is on that machine. */
__attribute__((constructor)) static void find_machine(void)
{
    Dl_info self;
    if (!dladdr((void *)find_machine, &self))
        return;
    const char *slash = strrchr(self.dli_fname, '/');
    int folder = slash ? (int)(slash - self.dli_fname) : 0;
    snprintf(path, sizeof path, "%.*s/machine.nvml", folder, self.dli_fname);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat status;
    if (fd < 0)
        return;
    if (fstat(fd, &status) == 0 && status.st_size == sizeof *machine) {
        void *mapped = mmap(NULL, sizeof *machine, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        machine = mapped == MAP_FAILED ? NULL : mapped;
    }
    close(fd);
}

static int take(void)
{
    int fd = machine ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return 0;
    flock(fd, LOCK_EX);
    lock_fd = fd;
    return 1;
}

nvmlReturn_t leave(nvmlReturn_t code)
{
    close(lock_fd);
    return code;
}

nvmlReturn_t enter_driver(void)
{
    if (!take())
        return NVML_ERROR_UNKNOWN;
    if (!inits)
        return leave(NVML_ERROR_UNINITIALIZED);
    if (!machine->loaded)
        return leave(NVML_ERROR_DRIVER_NOT_LOADED);
    if (machine->loads != load)
        return leave(NVML_ERROR_UNINITIALIZED);
    return NVML_SUCCESS;
}

static struct fault *fault_of(struct gpu *gpu, const char *function)
{
    for (int i = 0; i < FAULTS; i++) {
        struct fault *fault = &gpu->faults[i];
        if (fault->calls && (!fault->function[0] || !strcmp(fault->function, function)))
            return fault;
    }
    return NULL;
}

/* Ends early when the fault is taken away, so that a test need not wait for a call that it had hang for an hour. */
static void hang(const volatile struct fault *fault, uint32_t delay_ms)
{
    const struct timespec step = {.tv_nsec = 1000000};
    for (uint32_t passed = 0; passed < delay_ms && fault->delay_ms; passed++)
        nanosleep(&step, NULL);
}

nvmlReturn_t enter_gpu(const char *function, struct gpu *gpu)
{
    nvmlReturn_t code = enter_driver();
    if (code != NVML_SUCCESS)
        return code;
    struct fault *fault = fault_of(gpu, function);
    if (!fault)
        return NVML_SUCCESS;
    uint32_t delay_ms = fault->delay_ms;
    code = fault->code;
    fault->calls--;
    fault->met++;
    leave(NVML_SUCCESS);
    hang(fault, delay_ms);
    return code == NVML_SUCCESS ? enter_driver() : code;
}

struct gpu *enter(const char *function, const void *handle, unsigned kinds, nvmlReturn_t *code)
{
    const char *at = handle;
    if (!machine || at < (char *)machine->gpus || at >= (char *)(machine->gpus + GPUS)) {
        *code = inits ? NVML_ERROR_INVALID_ARGUMENT : NVML_ERROR_UNINITIALIZED;
        return NULL;
    }
    struct gpu *gpu = &machine->gpus[(size_t)(at - (char *)machine->gpus) / sizeof *gpu];
    *code = enter_gpu(function, gpu);
    if (*code != NVML_SUCCESS)
        return NULL;
    uint32_t kind = *(const uint32_t *)handle;
    if (kind & kinds)
        return gpu;
    *code = leave(kind == NOTHING ? NVML_ERROR_NOT_FOUND : NVML_ERROR_INVALID_ARGUMENT);
    return NULL;
}

struct gpu *gpu_at(const char *address)
{
    unsigned wanted[4], found[4];
    if (!machine || sscanf(address, "%x:%x:%x.%x", &wanted[0], &wanted[1], &wanted[2], &wanted[3]) != 4)
        return NULL;
    for (uint32_t i = 0; i < machine->gpu_count; i++) {
        struct gpu *gpu = &machine->gpus[i];
        sscanf(gpu->address, "%x:%x:%x.%x", &found[0], &found[1], &found[2], &found[3]);
        if (!memcmp(wanted, found, sizeof wanted))
            return gpu;
    }
    return NULL;
}

struct machine *whole_machine(void)
{
    return machine;
}

unsigned long long now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000ULL + now.tv_nsec / 1000ULL;
}

nvmlReturn_t give_text(char *buffer, unsigned size, const char *text)
{
    if (strlen(text) >= size)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(buffer, text);
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlInitWithFlags(unsigned flags)
{
    if (flags & ~(unsigned)NVML_INIT_FLAG_NO_GPUS)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!take())
        return NVML_ERROR_UNKNOWN;
    if (!machine->loaded)
        return leave(NVML_ERROR_DRIVER_NOT_LOADED);
    /* A second init only counts: a driver that was loaded anew is not found by it. */
    if (!inits++)
        load = machine->loads;
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlShutdown(void)
{
    if (!take())
        return NVML_ERROR_UNKNOWN;
    if (!inits)
        return leave(NVML_ERROR_UNINITIALIZED);
    inits--;
    return leave(NVML_SUCCESS);
}
