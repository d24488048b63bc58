// A client of the warm process: toast/warm/client.py in C, for before Python starts. docs/formats.md has the protocol.
#ifndef TOAST_CLIENT_H
#define TOAST_CLIENT_H

#include <stddef.h>

enum { RUN_HERE = -1 };

// The command's name in Python. launcher.c has it: the other files are compiled once for all commands.
extern const char function[];

// The exit status of the command that these words make, where a warm process has run it; RUN_HERE where this process
// has to. Dies of SIGINT, SIGTERM and SIGHUP, once the job is called off.
//
// python: its path, which tells one installation from another. streams: descriptors of 0, 1 and 2. held: SIGINT is
// blocked, but is not to be.
int ask_warm_process(char** words, const char* python, const int streams[3], int held);

// ---- request.c

struct text {
  char* data;
  size_t size, room;
};

// Whether the words and the environment let a warm process be asked. terminal: standard input is one.
int may_ask(char** words, int terminal);

// Adds the body of the request to an empty text; 0 where it is too long.
int write_request(struct text* text, char** words);

#endif
