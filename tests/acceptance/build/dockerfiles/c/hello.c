#include <stdio.h>
#include <unistd.h>
#include "hello.h"

int main(int argc, char **argv)
{
	printf(GREETING, argc > 1 ? argv[1] : "nobody", VERSION, (int)getuid());
	return 0;
}
