/* GPU performance monitoring, which GPUs since Hopper have: two samples of one device, and what lies between them. */
#include "machine.h"

#include <stdlib.h>

enum { WHOLE_GPU = 0xffffffff };

/* A process's own. Until it is taken it is of no GPU. */
struct sample {
    struct gpu *gpu;
    uint32_t instance;
    unsigned long long taken_us;
    struct load load;
};

static int has_gpm(const struct gpu *gpu)
{
    return gpu->architecture >= NVML_DEVICE_ARCH_HOPPER;
}

API nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t device, nvmlGpmSupport_t *support)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, device, GPU, &code);
    if (!gpu)
        return code;
    if (support->version != NVML_GPM_SUPPORT_VERSION)
        return leave(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    support->isSupportedDevice = has_gpm(gpu);
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlGpmSampleAlloc(nvmlGpmSample_t *sample)
{
    nvmlReturn_t code = enter_driver();
    if (code != NVML_SUCCESS)
        return code;
    *sample = calloc(1, sizeof(struct sample));
    whole_machine()->samples++;
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlGpmSampleFree(nvmlGpmSample_t sample)
{
    nvmlReturn_t code = enter_driver();
    if (code != NVML_SUCCESS)
        return code;
    if (!sample)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    free(sample);
    whole_machine()->samples--;
    return leave(NVML_SUCCESS);
}

/* The load that counts for an instance: that of its first compute instance, and none without one. */
static const struct load *load_of(const struct gpu *gpu, uint32_t number)
{
    static const struct load idle;
    if (number == WHOLE_GPU)
        return &gpu->load;
    for (int i = 0; i < INSTANCES; i++) {
        const struct instance *instance = &gpu->instances[i];
        if (instance->kind == NOTHING || instance->id != number)
            continue;
        return instance->computes[0].kind == NOTHING ? &idle : &instance->computes[0].load;
    }
    return NULL;
}

static nvmlReturn_t take_sample(const char *function, nvmlDevice_t device, uint32_t instance,
                                struct sample *sample)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(function, device, GPU, &code);
    if (!gpu)
        return code;
    if (!has_gpm(gpu))
        return leave(NVML_ERROR_NOT_SUPPORTED);
    const struct load *load = load_of(gpu, instance);
    if (!load)
        return leave(NVML_ERROR_NOT_FOUND);
    *sample = (struct sample){gpu, instance, now_us(), *load};
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlGpmSampleGet(nvmlDevice_t device, nvmlGpmSample_t sample)
{
    return take_sample(__func__, device, WHOLE_GPU, sample);
}

API nvmlReturn_t nvmlGpmMigSampleGet(nvmlDevice_t device, unsigned instance, nvmlGpmSample_t sample)
{
    return take_sample(__func__, device, instance, sample);
}

static void answer(const struct load *load, nvmlGpmMetric_t *asked)
{
    asked->nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
    for (int i = 0; i < METRICS; i++)
        if (asked->metricId && whole_machine()->metrics[i] == asked->metricId) {
            asked->nvmlReturn = NVML_SUCCESS;
            asked->value = load->metrics[i] / 1000.0;
        }
}

/* The second sample's load is taken for what was done since the first one. */
API nvmlReturn_t nvmlGpmMetricsGet(nvmlGpmMetricsGet_t *asked)
{
    const struct sample *earlier = asked->sample1, *later = asked->sample2;
    if (!earlier || !later || !later->gpu)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t code = enter_gpu(__func__, later->gpu);
    if (code != NVML_SUCCESS)
        return code;
    if (asked->version != NVML_GPM_METRICS_GET_VERSION)
        return leave(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    if (earlier->gpu != later->gpu || earlier->instance != later->instance ||
        earlier->taken_us >= later->taken_us)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    for (uint32_t i = 0; i < asked->numMetrics; i++)
        answer(&later->load, &asked->metrics[i]);
    return leave(NVML_SUCCESS);
}
