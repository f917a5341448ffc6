from erpd_hub.cli import main

if __name__ == "__main__":
    main()
