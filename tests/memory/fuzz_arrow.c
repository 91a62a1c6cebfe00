/* Arrow structures, valid and malformed, through the import of include/kafka_ext/columns.h under AddressSanitizer.
 *
 * Every buffer is allocated at exactly the size that Arrow's specification makes its producer provide for the length and offset the array
 * states, so that one byte read beyond it is reported. What lies in the buffers (offsets, views, dictionary indices, bitmaps) and
 * whatever else could be wrong without a lie about memory (counts, NULL pointers, formats, released arrays) is random.
 *
 * What was accepted is then read a second time after all of the caller's memory has been written to at random, the arrays of buffers'
 * addresses and of their sizes included: another thread can do that while a call waits for room. Each element must come out within the
 * buffers, or as changed.
 *
 *     fuzz_arrow [seed] [runs]                                     a seeded driver of its own
 *     clang -fsanitize=fuzzer,address,undefined -DKX_LIBFUZZER …   libFuzzer's
 *
 */
#include "kafka_ext/columns.h"

/* What the assertions in the headers of Python 3.12 and newer refer to. This program is not linked with Python, and calls nothing of it. */
PyTypeObject PyLong_Type, PyBool_Type;

/* Named by columns.h and not reached here: a column from Arrow holds no Python objects. So nothing of Python needs to be linked. */
PyObject _Py_NoneStruct;

static const uint8_t *input;
static size_t input_size, input_at;
static uint64_t state;

static uint64_t next_random(void)
{
    if (input) {
        uint64_t number = 0;
        for (int i = 0; i < 2 && input_at < input_size; i++)
            number = number << 8 | input[input_at++];
        return number;
    }
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static int64_t below(int64_t n) { return (int64_t)(next_random() % (uint64_t)n); }
static int one_in(int n) { return below(n) == 0; }

/* What an array is made of; freed all at once. */
static void *owned[256];
static size_t owned_sizes[256];
static int owned_count;

static void *make(size_t size)
{
    void *memory = malloc(size ? size : 1);
    if (!memory || owned_count == 256)
        abort();
    owned_sizes[owned_count] = size;
    owned[owned_count++] = memory;
    return memory;
}

static void release_schema(struct ArrowSchema *schema) { schema->release = NULL; }
static void release_array(struct ArrowArray *array) { array->release = NULL; }

static const uint8_t *bitmap(int64_t bits)
{
    const size_t size = (size_t)((bits + 7) / 8);
    uint8_t *bytes = make(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)next_random();
    return bytes;
}

/* At an odd address now and then: alignment is only recommended. */
static char *numbers(size_t size)
{
    const size_t shift = one_in(4) ? 1 : 0;
    return (char *)make(size + shift) + shift;
}

/* Two arrays of three have sound contents, so that what else is wrong with them is reached. */
static int sound;

static const void *offsets(int64_t count, int wide)
{
    char *memory = numbers((size_t)(count + 1) * (wide ? 8 : 4));
    int64_t at = sound ? below(3) : below(5) - 2;
    for (int64_t i = 0; i <= count; i++) {
        if (wide)
            memcpy(memory + i * 8, &at, 8);
        else
            memcpy(memory + i * 4, &(int32_t){(int32_t)at}, 4);
        at += !sound && one_in(16) ? -below(40) : below(9);
    }
    return memory;
}

/* The data buffer that valid offsets imply; malformed ones imply nothing, and get none. */
static const void *data_for(const void *index, int64_t count, int wide)
{
    int64_t last = 0, most = 0;
    for (int64_t i = 0; i <= count; i++) {
        last = wide ? kx_at_int64_t(index, i) : kx_at_int32_t(index, i);
        if (last > most)
            most = last;
    }
    return memset(make((size_t)most), 'x', (size_t)most);
}

static const char *const formats[] = {"z", "u", "Z", "U", "vz", "vu", "w:0", "w:5", "w:16", "n", "c", "C", "s", "S", "i", "I", "l", "L",
                                      "w:", "w:-1", "w:9223372036854775807", "w:7x", "tsn:", "tsu:UTC", "tss:", "tsm:", "ts", "tsq:", "+s", "+l",
                                      "g", "", "zz", "v", "vuz"};

static void build(struct ArrowSchema *schema, struct ArrowArray *array, int depth);

static void build_buffers(const char *format, struct ArrowArray *array)
{
    const int64_t count = array->length + array->offset;
    const void **buffers = make(8 * sizeof(void *));
    sound = !one_in(3);
    array->buffers = buffers;
    memset(buffers, 0, 8 * sizeof(void *));
    buffers[0] = one_in(3) ? NULL : bitmap(count);
    array->null_count = !buffers[0] ? (one_in(20) ? 1 : -(int64_t)below(2)) : one_in(4) ? -1 : below(array->length + 1);
    array->n_buffers = 2;
    if (strchr("zuZU", format[0]) && format[0]) {
        const int wide = format[0] == 'Z' || format[0] == 'U';
        array->n_buffers = 3;
        buffers[1] = offsets(count, wide);
        buffers[2] = data_for(buffers[1], count, wide);
        if (!array->length && one_in(3))
            buffers[1] = buffers[2] = NULL;
    } else if (format[0] == 'v') {
        const int extra = (int)below(4);
        char *sizes = numbers((size_t)extra * 8);
        char *views = numbers((size_t)count * 16);
        for (int b = 0; b < extra; b++) {
            int64_t size = 13 + below(40);
            buffers[2 + b] = one_in(16) ? NULL : memset(make((size_t)size), 'v', (size_t)size);
            if (!sound && one_in(16))
                size = -size;
            memcpy(sizes + b * 8, &size, 8);
        }
        for (int64_t i = 0; i < count; i++) {
            kx_view16 view;
            view.size = !sound && one_in(16) ? (int32_t)next_random() : (int32_t)below(extra ? 14 : 13);
            for (int b = 0; b < 12; b++)
                view.u.inlined[b] = (uint8_t)next_random();
            if (view.size > 12) {
                view.u.elsewhere.buffer = !sound && one_in(16) ? (int32_t)next_random() : (int32_t)below(extra + !sound);
                view.u.elsewhere.offset = !sound && one_in(16) ? (int32_t)next_random() : (int32_t)below(sound ? 1 : 14);
            }
            memcpy(views + i * 16, &view, 16);
        }
        buffers[1] = views;
        buffers[2 + extra] = sizes;
        array->n_buffers = 3 + extra;
    } else if (format[0] == 'w') {
        long width = strtol(format[1] ? format + 2 : "", NULL, 10);
        buffers[1] = width > 0 && width < 64 ? memset(make((size_t)(count * width)), 'w', (size_t)(count * width)) : make(0);
    } else {
        static const int widths[256] = {['c'] = 1, ['C'] = 1, ['s'] = 2, ['S'] = 2, ['i'] = 4, ['I'] = 4, ['l'] = 8, ['L'] = 8, ['t'] = 8, ['g'] = 8};
        size_t size = (size_t)count * (size_t)widths[(uint8_t)format[0]];
        char *memory = numbers(size);
        for (size_t i = 0; i < size; i++)
            memory[i] = (char)(sound ? 0 : one_in(2) ? 0 : one_in(2) ? (char)below(6) : (char)next_random());
        buffers[1] = memory;
    }
    if (one_in(24))
        array->n_buffers = below(format[0] == 'v' ? 3 : array->n_buffers + 1);  /* with more, the sizes of views would be other memory */
    if (one_in(24))
        buffers[below(4)] = NULL;
    if (one_in(48))
        array->buffers = NULL;
}

static void build(struct ArrowSchema *schema, struct ArrowArray *array, int depth)
{
    memset(schema, 0, sizeof(*schema));
    memset(array, 0, sizeof(*array));
    schema->format = one_in(48) ? NULL : formats[below(sizeof(formats) / sizeof(*formats))];
    schema->release = release_schema;
    array->release = one_in(48) ? NULL : release_array;
    array->length = one_in(4) ? 0 : below(70);
    array->offset = one_in(2) ? 0 : below(20);
    build_buffers(schema->format ? schema->format : "z", array);
    if (one_in(32))
        array->length = -1 - below(5);
    if (one_in(32))
        array->offset = one_in(2) || array->length <= 0 ? -1 - below(5) : INT64_MAX;
    if (depth < 3 && one_in(3)) {
        struct ArrowSchema *values = make(sizeof(*values));
        struct ArrowArray *array_of_values = make(sizeof(*array_of_values));
        build(values, array_of_values, depth + 1);
        if (!one_in(3))
            schema->format = formats[10 + below(8)];        /* integers, as a dictionary's indices are */
        if (!one_in(24))
            schema->dictionary = values;
        if (!one_in(24))
            array->dictionary = array_of_values;
        if (array->offset < 0 || array->length < 0 || array->offset > 1000)
            array->offset = array->length = 0;
        build_buffers(schema->format ? schema->format : "z", array);
    }
}

static volatile uint64_t seen;
static void *own;

static void read_all(const kx_segment *s)
{
    for (int64_t i = 0; i < kx_segment_length(s); i++) {
        const kx_span span = kx_segment_at(s, i);
        if (!span.data && span.size)
            abort();
        for (size_t at = 0; at < span.size; at++)
            seen += ((const uint8_t *)span.data)[at];
    }
}

static int64_t accepted, refused, changed;

/* As read_all(), in memory that says something else than when it was checked. */
static void read_changed(const kx_segment *s)
{
    for (int at = 0; at < owned_count; at++)
        for (size_t byte = 0; byte < owned_sizes[at]; byte++)
            if (one_in(6))
                ((uint8_t *)owned[at])[byte] = (uint8_t)(one_in(3) ? next_random() : one_in(2) ? 0 : 0xff);
    for (int64_t i = 0; i < kx_segment_length(s); i++) {
        const kx_span span = kx_segment_at(s, i);
        changed += span.data == kx_changed;
        if (!span.data && span.size)
            abort();
        for (size_t at = 0; at < span.size; at++)
            seen += ((const uint8_t *)span.data)[at];
    }
}

static const char *import(const struct ArrowSchema *schema, const struct ArrowArray *array, kx_segment *segment, char *text, size_t size)
{
    const char *wrong = kx_segment_from_arrow(schema, array, segment, text, size);
    if (!wrong)
        kx_segment_own(segment, own = realloc(own, kx_segment_own_size(segment) + 1));
    return wrong;
}

static void run(void)
{
    struct ArrowSchema schema;
    struct ArrowArray array;
    kx_segment segment;
    kx_integers integers;
    char text[128];
    owned_count = 0;
    build(&schema, &array, 0);
    if (!import(&schema, &array, &segment, text, sizeof(text)) && !kx_segment_check(&segment)) {
        accepted++;
        read_all(&segment);
    } else {
        refused++;
    }
    for (int timestamp = 0; timestamp < 2; timestamp++)
        if (!kx_integers_from_arrow(&schema, &array, timestamp, &integers, text, sizeof(text))) {
            accepted++;
            if (kx_integers_outside(&integers, timestamp, INT64_MAX) < 0)
                for (int64_t i = 0; i < integers.length; i++)
                    if (kx_integer_at(&integers, i, timestamp) < timestamp)
                        abort();
        }
    /* The same array as the only column of a table, whose own slice is random too. */
    {
        struct ArrowSchema *schemas[1] = {&schema}, table_schema = {"+s", NULL, NULL, 0, 1, schemas, NULL, release_schema, NULL};
        struct ArrowArray *arrays[1] = {one_in(16) ? NULL : &array}, table = {0};
        const void *validity[1] = {NULL};
        table.length = one_in(24) ? -1 : below(40);
        table.offset = one_in(24) ? INT64_MAX : below(20);
        table.n_children = one_in(24) ? below(3) : 1;
        table.children = one_in(24) ? NULL : arrays;
        table.n_buffers = 1;
        table.buffers = validity;
        table.release = release_array;
        table.null_count = below(3) - 1;
        if (table.length > 0 && table.offset < 1000 && one_in(2))
            validity[0] = bitmap(table.length + table.offset);
        if (!kx_table_check(&table_schema, &table)) {
            seen += (uint64_t)kx_table_has_nulls(&table);
            if (!import(&schema, &array, &segment, text, sizeof(text))
                && table.length <= kx_segment_length(&segment) - table.offset) {
                segment = kx_segment_slice(&segment, table.offset, table.length);
                if (!kx_segment_check(&segment))
                    read_all(&segment);
            }
        }
    }
    if (!import(&schema, &array, &segment, text, sizeof(text)) && !kx_segment_check(&segment))
        read_changed(&segment);     /* last: nothing of the array can be used any more */
    while (owned_count)
        free(owned[--owned_count]);
}

#ifdef KX_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input = data;
    input_size = size;
    input_at = 0;
    run();
    return 0;
}
#else
int main(int argc, char **argv)
{
    const uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    const long runs = argc > 2 ? strtol(argv[2], NULL, 10) : 100000;
    for (long i = 0; i < runs; i++) {
        state = (seed << 32) + (uint64_t)i + 0x9e3779b97f4a7c15u;
        for (int warm = 0; warm < 8; warm++)
            next_random();
        run();
    }
    printf("%ld arrays: %lld imports accepted, %lld refused, %lld elements found changed\n", runs, (long long)accepted,
           (long long)refused, (long long)changed);
    free(own);
    return accepted && refused && changed ? 0 : 1;
}
#endif
