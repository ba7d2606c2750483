#ifndef LBOX_CLI_SIGNALS_H
#define LBOX_CLI_SIGNALS_H

/* From here on the first SIGINT, SIGTERM and SIGHUP and every SIGQUIT are a byte, their number, in
   this descriptor (the program's), and do nothing else. -1: no descriptor left. */
int lbox_cli_signals(void);

/* Ends the program as that signal does, so that who started it sees it. */
void lbox_cli_die_of(int number);

#endif
