/* The protocol: lines of JSON on stdin and stdout, or a folder of cases as the argument. */
#define _POSIX_C_SOURCE 200809L

#include "checks.h"
#include "generated.h"
#include "json.h"
#include "ops.h"
#include "text.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { LONGEST_PATH = 4096 };

static const char *STATUS[] = {"done", "not_supported", "refused", "failed"};

/* What prompt.json asks: the op, and a config that is legal and offered. */
static Status read_prompt(const Json *prompt, const Op **op, Config *cfg)
{
    const char *format = json_text(prompt, "format"), *name = json_text(prompt, "op");
    const char *arithmetic = json_text(prompt, "arithmetic");
    REQUIRE(format != NULL && name != NULL && arithmetic != NULL, "prompt.json lacks format, op or arithmetic");
    if (strncmp(format, "1.", 2) != 0 && strncmp(format, "2.", 2) != 0)
        return not_supported("format %s", format);
    *op = op_find(name);
    if (*op == NULL)
        return not_supported("no op %s", name);
    Status status = config_read(json_member(prompt, "config"), cfg);
    if (status == DONE && strcmp(arithmetic, "float32") != 0)
        return not_supported("arithmetic %s", arithmetic);
    return status;
}

/* Answer the question in a folder. */
static Status answer(const char *folder, const Json *prompt)
{
    const Op *op = NULL;
    Config cfg;
    Tensors in = {0}, out = {0};
    Status status = read_prompt(prompt, &op, &cfg);
    if (status == DONE)
        status = tensors_read(take_path(folder, "in.safetensors"), &in);
    if (status == DONE)
        status = generated_add(prompt, &in);
    if (status == DONE)
        status = check(op, &cfg, &in);
    if (status != DONE)
        return status;
    op->run(&cfg, &in, &out);
    return tensors_write(take_path(folder, "out.safetensors"), &out);
}

/* prompt.json of a folder, or NULL. */
static const Json *prompt_in(const char *folder)
{
    char *bytes;
    size_t length;
    if (read_file(take_path(folder, "prompt.json"), &bytes, &length) != DONE)
        return NULL;
    return json_read(bytes, length);
}

/* One line that says what became of a case. */
static void reply(FILE *file, const char *id, Status status)
{
    fputs("{\"case\": ", file);
    text_write(file, id);
    fprintf(file, ", \"status\": \"%s\"", STATUS[status]);
    if (status != DONE) {
        fputs(", \"reason\": ", file);
        text_write(file, reason());
    }
    fputs("}\n", file);
    fflush(file);
}

/* One line from stdin; false if it was the last one. */
static bool serve(const char *line, size_t length)
{
    const Json *request = json_read(line, length), *stop = json_member(request, "stop");
    const char *id = json_text(request, "run"), *folder = json_text(request, "dir");
    if (stop != NULL)
        return false;
    if (json_member(request, "start") != NULL) {
        puts("{\"name\": \"moe in C\", \"version\": \"1.0\", \"arithmetic\": [\"float32\"], "
             "\"profiles\": [\"deepseek-v3\"]}");
        fflush(stdout);
    } else if (id != NULL && folder != NULL) {
        reply(stdout, id, answer(folder, prompt_in(folder)));
    } else {
        reply(stdout, id != NULL ? id : "", failed("a line says start, stop, or run and dir"));
    }
    return true;
}

static int converse(void)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    bool more = true;
    while (more && (length = getline(&line, &room, stdin)) >= 0) {
        more = serve(line, (size_t)length);
        release_all();
    }
    free(line);
    return EXIT_SUCCESS;
}

/* Answer a case as a file: out.safetensors, or reply.json if there is no answer; what lay there before is removed. */
static void answer_file(const char *folder)
{
    struct stat about;
    if (stat(take_path(folder, "prompt.json"), &about) != 0)
        return; /* no case */
    const Json *prompt = prompt_in(folder);
    const char *id = json_text(prompt, "id"), *path = take_path(folder, "reply.json");
    remove(path);
    remove(take_path(folder, "out.safetensors"));
    Status status = answer(folder, prompt);
    if (status == DONE)
        return;
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        fprintf(stderr, "%s cannot be written\n", path);
        return;
    }
    reply(file, id != NULL ? id : folder, status);
    fclose(file);
}

/* Answer all cases in a folder and in the folders under it; links are not followed. */
static void walk(const char *folder)
{
    char path[LONGEST_PATH];
    struct stat about;
    answer_file(folder);
    release_all();
    DIR *open = opendir(folder);
    for (struct dirent *entry; open != NULL && (entry = readdir(open)) != NULL;) {
        int length = snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] == '.' || length >= LONGEST_PATH)
            continue;
        if (lstat(path, &about) == 0 && S_ISDIR(about.st_mode))
            walk(path);
    }
    if (open != NULL)
        closedir(open);
}

int main(int count, char **arguments)
{
    if (count == 1)
        return converse();
    if (count > 2 || arguments[1][0] == '-') {
        fprintf(stderr, "usage: %s [DIR]\n", arguments[0]);
        return EXIT_FAILURE;
    }
    walk(arguments[1]);
    return EXIT_SUCCESS;
}
