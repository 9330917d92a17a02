/*
 * A plug-in for QEMU's TCG: counts instructions, and halts the guest's processor at marked addresses
 * until the reader of its records answers. The guest does not notice: its clock counts instructions
 * (-icount), and none is executed meanwhile.
 *
 *   -plugin file=marks.so,marks=FILE,records=FIFO,answers=FIFO
 *
 * FILE has a line for each mark, in hexadecimal numbers:
 *   at ADDRESS           halt each time when this instruction is about to be executed
 *   enter ADDRESS        the same; and the next block within `back` halts, too
 *   back START END       see `enter`
 *
 * A record is two numbers of 64 bits: address, and instructions executed before. An answer is one
 * byte. An instruction that a fault interrupts counts with the rest of its block, and again when it is
 * restarted: the same in each run.
 *
 * QEMU's header is not in Debian's packages; the declarations below are those of
 * include/qemu/qemu-plugin.h, and are the same in all versions of its interface (API_VERSION).
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_CB_R_REGS, QEMU_PLUGIN_CB_RW_REGS };
typedef void (*qemu_plugin_vcpu_udata_cb_t)(unsigned int vcpu_index, void *userdata);
typedef void (*qemu_plugin_vcpu_tb_trans_cb_t)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, qemu_plugin_vcpu_tb_trans_cb_t);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, qemu_plugin_vcpu_udata_cb_t,
                                          enum qemu_plugin_cb_flags, void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, qemu_plugin_vcpu_udata_cb_t,
                                            enum qemu_plugin_cb_flags, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = API_VERSION;

struct mark {
    uint64_t address;
    bool enters;
};

static struct mark *marks;
static size_t many;
static uint64_t back_start, back_end;
static bool entered;
static uint64_t count;
static int records = -1, answers = -1;

static void halt(uint64_t address, uint64_t ahead)
{
    uint64_t record[2] = { address, count - ahead };
    char answer;

    if (records < 0)
        return;
    if (write(records, record, sizeof record) != (ssize_t)sizeof record
        || read(answers, &answer, 1) != 1) {
        close(records);
        records = -1; /* the reader is gone: the guest goes on without it */
    }
}

static int by_address(const void *left, const void *right)
{
    uint64_t one = ((const struct mark *)left)->address, two = ((const struct mark *)right)->address;

    return one < two ? -1 : one > two;
}

static void on_block(unsigned int cpu, void *size)
{
    (void)cpu;
    count += (uintptr_t)size;
}

static void on_back(unsigned int cpu, void *size)
{
    (void)cpu;
    if (entered) {
        entered = false;
        halt(back_start, (uintptr_t)size);
    }
}

/* A mark in a block, and how many instructions of the block are counted but not executed yet. */
struct place {
    const struct mark *mark;
    uint64_t ahead;
};

static void on_mark(unsigned int cpu, void *data)
{
    const struct place *place = data;

    (void)cpu;
    entered = place->mark->enters || entered;
    halt(place->mark->address, place->ahead);
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    size_t size = qemu_plugin_tb_n_insns(block);
    uint64_t start = qemu_plugin_tb_vaddr(block);

    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_block, QEMU_PLUGIN_CB_NO_REGS, (void *)size);
    if (start >= back_start && start < back_end)
        qemu_plugin_register_vcpu_tb_exec_cb(block, on_back, QEMU_PLUGIN_CB_R_REGS, (void *)size);
    for (size_t number = 0; number < size; number++) {
        struct qemu_plugin_insn *one = qemu_plugin_tb_get_insn(block, number);
        struct mark wanted = { qemu_plugin_insn_vaddr(one), false };
        struct mark *mark = bsearch(&wanted, marks, many, sizeof *marks, by_address);

        if (mark) {
            struct place *place = malloc(sizeof *place);

            if (!place)
                abort();
            *place = (struct place){ mark, size - number };
            qemu_plugin_register_vcpu_insn_exec_cb(one, on_mark, QEMU_PLUGIN_CB_R_REGS, place);
        }
    }
}

static bool read_marks(const char *path)
{
    FILE *file = fopen(path, "r");
    char word[16];
    uint64_t address;

    if (!file)
        return false;
    while (fscanf(file, "%15s %" SCNx64, word, &address) == 2) {
        if (!strcmp(word, "back")) {
            back_start = address;
            if (fscanf(file, "%" SCNx64, &back_end) != 1)
                break;
            continue;
        }
        marks = realloc(marks, (many + 1) * sizeof *marks);
        if (!marks)
            abort();
        marks[many++] = (struct mark){ address, !strcmp(word, "enter") };
    }
    fclose(file);
    qsort(marks, many, sizeof *marks, by_address);
    return true;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    for (int number = 0; number < argc; number++) {
        char *value = strchr(argv[number], '=');

        if (!value)
            return -1;
        value++;
        if (!strncmp(argv[number], "marks=", 6) && !read_marks(value))
            return -1;
        if (!strncmp(argv[number], "records=", 8))
            records = open(value, O_WRONLY);
        if (!strncmp(argv[number], "answers=", 8))
            answers = open(value, O_RDONLY);
    }
    if (records < 0 || answers < 0)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
