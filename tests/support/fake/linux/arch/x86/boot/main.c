void main(void)
{
	for (;;)
		;
}
