from erpd_hub.cli import main

main()
