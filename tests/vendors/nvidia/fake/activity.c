/* What devices do: utilization, memory, power, heat and processes. */
#include "machine.h"

enum { NO_INSTANCE = 0xffffffff, RESERVED_MIB = 640 };

API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, device, GPU, &code);
    if (!gpu)
        return code;
    if (gpu->mode)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *rates = (nvmlUtilization_t){.gpu = gpu->load.gpu_percent, .memory = gpu->load.memory_percent};
    return leave(NVML_SUCCESS);
}

/* Of a MIG device as of a GPU; what the driver reserves is no part of what is used. */
API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, device, GPU | COMPUTE_INSTANCE, &code);
    if (!gpu)
        return code;
    if (memory->version != VERSION_OF(nvmlMemory_v2_t, 2))
        return leave(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    const struct compute *mig = device;
    int is_whole = device == gpu;
    uint32_t used = is_whole ? gpu->load.memory_mib : mig->load.memory_mib;
    uint32_t total = is_whole ? gpu->memory_mib : gpu->cuts[instance_of(gpu, mig)->cut].memory_mib;
    memory->total = (unsigned long long)total << 20;
    memory->reserved = (unsigned long long)RESERVED_MIB << 20;
    memory->used = (unsigned long long)used << 20;
    memory->free = memory->total - memory->reserved - memory->used;
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts)
{
    return give_number(__func__, device, offsetof(struct gpu, load.milliwatts), milliwatts);
}

API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *celsius)
{
    if (sensor != NVML_TEMPERATURE_GPU)
        return NVML_ERROR_INVALID_ARGUMENT;
    return give_number(__func__, device, offsetof(struct gpu, load.celsius), celsius);
}

/* A caller's list of processes, as it fills up. */
struct list {
    nvmlProcessInfo_t *places;
    unsigned room, count;
};

static void list_load(struct list *list, const struct load *load, uint32_t does, uint32_t instance,
                      uint32_t compute)
{
    for (uint32_t i = 0; i < load->process_count; i++) {
        const struct process *process = &load->processes[i];
        if (!(process->does & does))
            continue;
        if (list->count++ < list->room)
            list->places[list->count - 1] = (nvmlProcessInfo_t){
                .pid = process->pid,
                .usedGpuMemory = (unsigned long long)process->memory_mib << 20,
                .gpuInstanceId = instance,
                .computeInstanceId = compute,
            };
    }
}

/* In MIG mode those of all MIG devices, each with its device's numbers. The count is what there is, or would be. */
static nvmlReturn_t list_processes(const char *function, nvmlDevice_t device, uint32_t does,
                                   unsigned *count, nvmlProcessInfo_t *places)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(function, device, GPU, &code);
    if (!gpu)
        return code;
    struct list list = {.places = places, .room = places ? *count : 0};
    if (!gpu->mode)
        list_load(&list, &gpu->load, does, NO_INSTANCE, NO_INSTANCE);
    for (int i = 0; gpu->mode && i < INSTANCES; i++)
        for (int j = 0; j < COMPUTES; j++) {
            const struct compute *one = &gpu->instances[i].computes[j];
            if (gpu->instances[i].kind != NOTHING && one->kind != NOTHING)
                list_load(&list, &one->load, does, gpu->instances[i].id, one->id);
        }
    *count = list.count;
    return leave(list.count > list.room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                         nvmlProcessInfo_t *places)
{
    return list_processes(__func__, device, COMPUTES_THERE, count, places);
}

API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                          nvmlProcessInfo_t *places)
{
    return list_processes(__func__, device, DRAWS_THERE, count, places);
}

API nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                            nvmlProcessInfo_t *places)
{
    return list_processes(__func__, device, COMPUTES_BY_MPS, count, places);
}

/* The driver samples all the time, so the newest samples are of now. */
API nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device,
                                                 nvmlProcessUtilizationSample_t *samples,
                                                 unsigned *count, unsigned long long since_us)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, device, GPU, &code);
    if (!gpu)
        return code;
    if (gpu->mode)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    const struct load *load = &gpu->load;
    unsigned room = samples ? *count : 0;
    *count = now_us() > since_us ? load->process_count : 0;
    if (!*count)
        return leave(NVML_ERROR_NOT_FOUND);
    if (*count > room)
        return leave(NVML_ERROR_INSUFFICIENT_SIZE);
    for (uint32_t i = 0; i < *count; i++)
        samples[i] = (nvmlProcessUtilizationSample_t){
            .pid = load->processes[i].pid,
            .timeStamp = now_us(),
            .smUtil = load->processes[i].sm_percent,
        };
    return leave(NVML_SUCCESS);
}
